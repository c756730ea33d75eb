"""EnCodec: the same weights in transformers and here."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from tests import margin_rule  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.tokenizers import contract  # noqa: E402

pytestmark = pytest.mark.parity

_SMALL = {
    'num_filters': 4,
    'hidden_size': 8,
    'codebook_dim': 8,
    'codebook_size': 32,
    'upsampling_ratios': [5, 2],
    'target_bandwidths': [12.0, 48.0],
}
_STEREO = {
    'norm_type': 'time_group_norm',
    'use_causal_conv': False,
    'audio_channels': 2,
    'normalize': True,
    'chunk_length_s': 0.02,
    'overlap': 0.01,
}
# The three published ones.
_24KHZ = {'target_bandwidths': [1.5, 3.0, 6.0, 12.0, 24.0]}
_48KHZ = {
    **_STEREO,
    'sampling_rate': 48000,
    'chunk_length_s': 1.0,
    'target_bandwidths': [3.0, 6.0, 12.0, 24.0],
}
_32KHZ = {
    'sampling_rate': 32000,
    'upsampling_ratios': [8, 5, 4, 4],
    'num_filters': 64,
    'codebook_size': 2048,
    'target_bandwidths': [2.2],
}


def _model(x=None, **options):
  """transformers' model with moving weights and codebooks of its latents."""
  model = codec_models.randomise(
      transformers.EncodecModel(transformers.EncodecConfig(**options))
  )
  config = model.config
  if x is None:
    size = max(60, 2 * config.codebook_size) * config.hop_length
    size = min(size, config.chunk_length or size)
    x = codec_models.audio(2, config.audio_channels, size, seed=3)
  x = torch.from_numpy(x.transpose(0, 2, 1))
  frames = []
  for start in range(0, x.shape[-1], config.chunk_stride or x.shape[-1]):
    part = x[..., start : start + (config.chunk_length or x.shape[-1])]
    if config.normalize:
      mono = part.mean(1, keepdim=True)
      part = part / mono.pow(2).mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
      latents = model.encoder(part).transpose(1, 2)
    frames.append(latents.reshape(-1, config.hidden_size))
  with torch.no_grad():
    frames = torch.cat(frames)
    frames = codec_models.spread_out(model.encoder.layers[-1].conv, frames)
    books = [layer.codebook for layer in model.quantizer.layers]
    codec_models.residual_codebooks(frames, [b.embed for b in books])
    for book in books:
      book.cluster_size.copy_(1 + torch.rand_like(book.cluster_size))
      book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
  return model


@pytest.fixture(scope='module', params=['mono', 'stereo'])
def small(request, tmp_path_factory):
  """(transformers' model, the directory it was saved to)."""
  options = {'mono': {}, 'stereo': _STEREO}[request.param]
  model = _model(**_SMALL, **options)
  directory = tmp_path_factory.mktemp('encodec')
  model.save_pretrained(directory)
  return model, directory


def _encode(model, x):
  """transformers' codes [B, F, K] and scales [B, S] of x [B, T, C]."""
  with torch.no_grad():
    found = model.encode(
        torch.from_numpy(x.transpose(0, 2, 1)),
        bandwidth=max(model.config.target_bandwidths),
    )
  codes = found.audio_codes.numpy()  # [S, B, K, F]
  codes = codes.transpose(1, 0, 3, 2).reshape(len(x), -1, codes.shape[2])
  return codes, found


def _check(model, directory, samples, weight_norm=False):
  codec, variables = interop.load_pretrained(directory, weight_norm=weight_norm)
  interop_base.check_complete(interop.FAMILIES['encodec'], codec)
  x = codec_models.audio(2, codec.spec.channels, samples)
  num_samples = np.full(2, samples)
  expected, found = _encode(model, x)
  tokens = codec.encode(variables, x, num_samples)
  frames = tokens.codes.shape[1]
  assert frames == codec.spec.frames(samples)
  expected = expected[:, :frames]
  codec_models.used(expected, model.config.codebook_size)
  if codec.segment is None:
    with torch.no_grad():
      latents = model.encoder(torch.from_numpy(x.transpose(0, 2, 1)))
    codec_models.close(
        codec.encode_latents(variables['params'], x, num_samples)[0],
        latents.transpose(1, 2),
    )
  else:
    scales = np.stack([s.numpy()[:, 0] for s in found.audio_scales], axis=1)
    per = model.config.chunk_length // model.config.hop_length
    codec_models.close(tokens.scales[:, ::per], scales)
  margins = contract.margins_of(codec, variables, x, num_samples)
  margin_rule.assert_same_codes(tokens.codes, expected, margins)
  with torch.no_grad():
    audio = model.decode(
        found.audio_codes,
        found.audio_scales,
        last_frame_pad_length=found.last_frame_pad_length,
    )[0]
  decoded, back = codec.decode(variables, tokens.replace(codes=expected))
  np.testing.assert_array_equal(back, num_samples)
  codec_models.close(
      decoded[:, :samples], audio.numpy().transpose(0, 2, 1)[:, :samples]
  )


@pytest.mark.parametrize('weight_norm', [False, True])
def test_codes_and_audio_are_those_of_transformers(small, weight_norm):
  model, directory = small
  _check(model, directory, 1403, weight_norm)


@pytest.mark.parametrize('samples', [1, 3, 9, 10, 11, 47])
def test_short_clips(small, samples):
  model, directory = small
  codec, variables = interop.load_pretrained(directory)
  x = codec_models.audio(1, codec.spec.channels, samples)
  tokens = codec.encode(variables, x, np.array([samples]))
  expected, _ = _encode(model, x)
  np.testing.assert_array_equal(tokens.codes, expected)


def test_a_padded_batch_is_its_rows(small):
  model, directory = small
  codec, variables = interop.load_pretrained(directory)
  num_samples = np.array([700, 333, 10])
  x = codec_models.audio(3, codec.spec.channels, 700)
  x[np.arange(700) >= num_samples[:, None]] = np.nan
  tokens = codec.encode(variables, x, num_samples)
  margins = contract.margins_of(codec, variables, x, num_samples)
  comparison = margin_rule.Comparison()
  for row, length in enumerate(num_samples):
    expected, _ = _encode(model, x[row : row + 1, :length])
    frames = codec.spec.frames(length)
    comparison.add(
        tokens.codes[row, :frames], expected[0, :frames], margins[row, :frames]
    )
  comparison.check()


def test_saved_weights_load_in_transformers(small, tmp_path):
  model, directory = small
  for weight_norm in (False, True):
    codec, variables = interop.load_pretrained(
        directory, weight_norm=weight_norm
    )
    interop.save_pretrained(tmp_path, codec, variables, 'encodec')
    again = transformers.EncodecModel.from_pretrained(tmp_path)
    x = torch.from_numpy(
        codec_models.audio(1, codec.spec.channels, 400).transpose(0, 2, 1)
    )
    with torch.no_grad():
      codec_models.close(again(x)[1], model(x)[1])
    for name, value in model.state_dict().items():
      if 'quantizer' in name:
        np.testing.assert_array_equal(again.state_dict()[name], value, name)


def test_any_two_weights_exchanged_show(small):
  model, directory = small
  codec, variables = interop.load_pretrained(directory)
  x = codec_models.audio(1, codec.spec.channels, 300)
  num_samples = np.array([300])
  tokens = codec.encode(variables, x, num_samples)
  run = codec_models.outputs(codec)
  codec_models.assert_permutations_show(
      directory,
      lambda v: run(v, x, num_samples, tokens),
      # Two biases of an LSTM's gates; those at the end of a residual block.
      additive=[('bias_ih', 'bias_hh'), (r'block\.3', 'shortcut')],
  )


# The stereo model looks ahead.
@pytest.mark.parametrize('small', ['mono'], indirect=True)
def test_zeros_for_reflection_stream(small):
  _, directory = small
  codec, _ = interop.load_pretrained(directory, streamable=True)
  assert codec.steppable
  assert not interop.load_pretrained(directory)[0].steppable


@pytest.mark.slow
@pytest.mark.parametrize('options', [_24KHZ, _48KHZ, _32KHZ], ids=[24, 48, 32])
def test_full_size(options, tmp_path):
  samples = 2 * options.get('sampling_rate', 24000) + 1234
  channels = options.get('audio_channels', 1)
  model = _model(codec_models.audio(2, channels, samples), **options)
  model.save_pretrained(tmp_path)
  _check(model, tmp_path, samples)
