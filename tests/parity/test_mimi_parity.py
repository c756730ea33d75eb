"""Mimi: the same weights in transformers and here, whole and streaming."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from tests import margin_rule  # noqa: E402
from tests.parity import codec_models  # noqa: E402

pytestmark = pytest.mark.parity

_SMALL = {
    'num_filters': 4,
    'hidden_size': 16,
    'upsampling_ratios': [3, 2],
    'codebook_size': 32,
    'codebook_dim': 4,
    'vector_quantization_hidden_dimension': 4,
    'num_quantizers': 4,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'intermediate_size': 24,
    'sliding_window': 7,
    'upsample_groups': 16,
}


def _model(x=None, **options):
  """transformers' model with moving weights and codebooks of its latents."""
  model = transformers.MimiModel(transformers.MimiConfig(**options))
  codec_models.randomise(model)
  config = model.config
  hop = int(config.sampling_rate / config.frame_rate)
  frames = max(60, min(300, config.codebook_size))
  if x is None:
    x = codec_models.audio(2, 1, frames * hop, seed=3)
  x = x.transpose(0, 2, 1)
  with torch.no_grad():
    # What is small by its start must not hide what the layers do.
    for name, value in model.state_dict().items():
      if name.endswith('scale.scale'):
        value.copy_(0.2 + 0.2 * torch.rand_like(value))
      elif 'q_proj' in name or 'k_proj' in name:
        value.mul_(10)
      elif 'layernorm' in name:
        value.add_(0.3 * torch.randn_like(value))
      elif '_transformer' in name:
        value.mul_(5)
    latents = model.encoder(torch.from_numpy(x)).latents
    quantizer = model.quantizer
    for part in (
        quantizer.semantic_residual_vector_quantizer,
        quantizer.acoustic_residual_vector_quantizer,
    ):
      flat = part.input_proj(latents).transpose(1, 2)
      flat = flat.reshape(-1, flat.shape[-1])
      books = [torch.empty_like(x.codebook.embed_sum) for x in part.layers]
      codec_models.residual_codebooks(flat, books)
      for layer, book in zip(part.layers, books, strict=True):
        usage = 0.5 + torch.rand(len(book))
        layer.codebook.cluster_usage.copy_(usage)
        layer.codebook.embed_sum.copy_(book * usage[:, None])
        layer.codebook._embed = None
  return model


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """(transformers' model, the directory it was saved to)."""
  model = _model(**_SMALL)
  directory = tmp_path_factory.mktemp('mimi')
  model.save_pretrained(directory)
  return model, directory


@pytest.fixture(scope='module')
def ours(small):
  """(codec, variables, jitted encode, jitted decode)."""
  codec, variables = interop.load_pretrained(small[1])
  return codec, variables, jax.jit(codec.quantise), jax.jit(codec.decode)


def _check(model, codec, variables, encode, decode, samples):
  x = codec_models.audio(2, 1, samples)
  num_samples = np.full(2, samples)
  found = encode(variables, x, num_samples)
  given = torch.from_numpy(x.transpose(0, 2, 1))
  with torch.no_grad():
    latents = model.encoder(given).latents
    expected = model.encode(given).audio_codes
    audio = model.decode(expected).audio_values
  expected = expected.numpy().transpose(0, 2, 1)
  codec_models.used(expected, model.config.codebook_size)
  assert found.codes.shape == expected.shape
  codec_models.close(
      codec.encode_latents(variables['params'], x, num_samples)[0],
      latents.transpose(1, 2),
  )
  # Both quantisers read the latents themselves.
  split = codec.bottleneck.semantic
  for part in (slice(0, split), slice(split, None)):
    margin_rule.assert_same_codes(
        found.codes[..., part], expected[..., part], found.margins[..., part]
    )
  tokens = codec.encode(variables, x, num_samples).replace(codes=expected)
  decoded, back = decode(variables, tokens)
  np.testing.assert_array_equal(back, num_samples)
  codec_models.close(
      decoded[:, :samples], audio.numpy().transpose(0, 2, 1)[:, :samples]
  )


# Whole frames; an odd number of frames before the last stride; odd samples.
@pytest.mark.parametrize('samples', [720, 726, 1003])
def test_codes_and_audio_are_those_of_transformers(small, ours, samples):
  _check(small[0], *ours, samples)


def test_every_leaf_has_one_name(ours):
  interop_base.check_complete(interop.FAMILIES['mimi'], ours[0])


def test_fewer_codebooks_decode_as_in_transformers(small, ours):
  codec, variables, _, decode = ours
  x = codec_models.audio(1, 1, 600)
  tokens = codec.encode(variables, x, np.array([600]))
  for count in (1, 2, 3):
    codes = np.asarray(tokens.codes)[..., :count]
    with torch.no_grad():
      expected = (
          small[0]
          .decode(torch.from_numpy(codes.transpose(0, 2, 1)).long())
          .audio_values
      )
    decoded, _ = decode(variables, tokens.replace(codes=codes))
    codec_models.close(decoded, expected.numpy().transpose(0, 2, 1))


def test_streaming_both_ways_equals_the_whole(ours):
  codec, variables, encode, decode = ours
  frames = 40
  x = codec_models.audio(2, 1, frames * codec.hop)
  num_samples = np.array([frames * codec.hop, 23 * codec.hop + 5])
  mask = np.arange(x.shape[1]) < num_samples[:, None]
  found = encode(variables, x, num_samples)
  state = codec.initial_state(2)
  step, sound = jax.jit(codec.encode_step), jax.jit(codec.decode_step)
  codes, audio = [], []
  for frame in range(frames):
    here = slice(frame * codec.hop, (frame + 1) * codec.hop)
    tokens, valid, state['encode'] = step(
        variables, x[:, here], mask[:, here], state['encode']
    )
    y, _, state['decode'] = sound(variables, tokens, valid, state['decode'])
    codes.append(tokens)
    audio.append(y)
  codes = np.concatenate(codes, axis=1)
  margin_rule.assert_same_codes(codes, found.codes, found.margins)
  whole, _ = decode(
      variables, codec.encode(variables, x, num_samples).replace(codes=codes)
  )
  audio = np.where(mask[..., None], np.concatenate(audio, axis=1), 0)
  codec_models.close(audio, whole, 1e-5)


def test_saved_weights_load_in_transformers(small, tmp_path):
  model, directory = small
  for weight_norm in (False, True):
    codec, variables = interop.load_pretrained(
        directory, weight_norm=weight_norm
    )
    interop.save_pretrained(tmp_path, codec, variables, 'mimi')
    again = transformers.MimiModel.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
      np.testing.assert_allclose(
          again.state_dict()[name], value, rtol=1e-6, atol=1e-7, err_msg=name
      )


def test_any_two_weights_exchanged_show(small, ours):
  codec, variables, _, _ = ours
  x = codec_models.audio(1, 1, 360)
  num_samples = np.array([360])
  tokens = codec.encode(variables, x, num_samples)
  run = codec_models.outputs(codec)
  codec_models.assert_permutations_show(
      small[1], lambda v: run(v, x, num_samples, tokens)
  )


@pytest.mark.slow
def test_full_size(tmp_path):
  samples = 5 * 24000 + 777
  model = _model(codec_models.audio(2, 1, samples))
  model.save_pretrained(tmp_path)
  codec, variables = interop.load_pretrained(tmp_path)
  _check(
      model,
      codec,
      variables,
      jax.jit(codec.quantise),
      jax.jit(codec.decode),
      samples,
  )
