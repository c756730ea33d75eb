"""MusicGen: the same weights in transformers and here, text encoder and all."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import generation  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.decoders import text_encoder  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from audiolm_jax.tokenizers import base as tokenizers_base  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity

_TEXT = {
    'vocab_size': 40,
    'd_model': 12,
    'd_kv': 5,
    'd_ff': 20,
    'num_layers': 2,
    'num_heads': 2,
    'relative_attention_num_buckets': 8,
    'relative_attention_max_distance': 12,
    'layer_norm_epsilon': 0.03,
}
_CODEC = {
    'num_filters': 2,
    'hidden_size': 6,
    'upsampling_ratios': [4, 2],
    'codebook_size': 16,
    'codebook_dim': 6,
    'sampling_rate': 16000,
    # Four codebooks.
    'target_bandwidths': [32.0],
    'chunk_length_s': None,
    'normalize': False,
}
_DECODER = {
    'vocab_size': 16,
    'hidden_size': 16,
    'ffn_dim': 24,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_codebooks': 4,
    'scale_embedding': True,
    'pad_token_id': 16,
    'bos_token_id': 16,
}
_TEXT_LENGTHS = np.array([7, 4])
_QUICK = testing.quick_options()


class _Musicgen:
  """transformers' model, where it lies, and ours with its variables."""

  def __init__(self, directory, **decoder):
    config = transformers.MusicgenConfig(
        text_encoder=transformers.T5Config(**_TEXT),
        audio_encoder=transformers.EncodecConfig(**_CODEC),
        decoder=transformers.MusicgenDecoderConfig(**{**_DECODER, **decoder}),
    )
    self.theirs = transformers.MusicgenForConditionalGeneration(config)
    codec_models.randomise(self.theirs.audio_encoder)
    language_models.randomise(self.theirs.decoder, 1)
    language_models.randomise(self.theirs.text_encoder, 2)
    language_models.randomise(self.theirs.enc_to_dec_proj, 3)
    self.directory = directory
    self.theirs.save_pretrained(directory)
    self.model, self.variables = interop.load_pretrained(directory)
    rng = np.random.default_rng(0)
    self.text = rng.integers(0, 40, (2, 7))
    self.text_mask = np.arange(7) < _TEXT_LENGTHS[:, None]
    self.encode = jax.jit(self.model.encode_text, compiler_options=_QUICK)

  def context(self, variables):
    states = self.encode(variables, self.text, _TEXT_LENGTHS)
    return self.model.context(variables, states, _TEXT_LENGTHS)

  def expected(self, inputs):
    """Logits [B, K, N, V] of what was put into each step, [B, K, N]."""
    with torch.no_grad():
      logits = self.theirs(
          input_ids=torch.from_numpy(self.text),
          attention_mask=torch.from_numpy(self.text_mask.astype(np.int64)),
          decoder_input_ids=torch.from_numpy(
              inputs.reshape(-1, inputs.shape[-1])
          ),
      ).logits.numpy()
    return logits.reshape(*inputs.shape, -1)


@pytest.fixture(scope='module', name='small')
def _small(tmp_path_factory):
  return _Musicgen(tmp_path_factory.mktemp('musicgen'))


@pytest.fixture(scope='module', name='score')
def _score(small):
  """jit(variables, codes, num_frames) -> log-probabilities [B, F, K]."""

  @jax.jit
  def run(variables, codes, num_frames):
    states = small.model.encode_text(variables, small.text, _TEXT_LENGTHS)
    context = small.model.context(variables, states, _TEXT_LENGTHS)
    scores = small.model.score(variables, codes, num_frames, context)
    return scores['frames'].log_prob

  return run


def _delayed(codes, num_frames, pad):
  """[B, K, F + K]: a step of fill, then codebook k delayed by k."""
  batch, frames, slots = codes.shape
  steps = np.full((batch, slots, frames + slots), pad)
  for b in range(batch):
    for k in range(slots):
      steps[b, k, 1 + k : 1 + k + num_frames[b]] = codes[b, : num_frames[b], k]
  return steps


def _check_scores(case, found, codes, num_frames):
  """found are the log-probabilities of codes under theirs."""
  steps = _delayed(codes, num_frames, codes.max() + 1)
  logits = case.expected(steps[:, :, :-1])
  logits = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
  for b in range(len(codes)):
    for k in range(codes.shape[2]):
      for f in range(num_frames[b]):
        expected = logits[b, k, f + k, codes[b, f, k]]
        assert found[b, f, k] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def _codes(frames=9, size=16, slots=4):
  rng = np.random.default_rng(3)
  codes = rng.integers(0, size, (2, frames, slots), np.int32)
  codes[0, 0, 0] = size - 1
  return codes


def test_text_states(small):
  found = small.encode(small.variables, small.text, _TEXT_LENGTHS)
  with torch.no_grad():
    expected = small.theirs.text_encoder(
        torch.from_numpy(small.text),
        attention_mask=torch.from_numpy(small.text_mask.astype(np.int64)),
    ).last_hidden_state
  mask = small.text_mask
  codec_models.close(np.asarray(found)[mask], expected.numpy()[mask])


def test_distances_share_offsets_as_in_transformers():
  distances = np.arange(-400, 401)
  for count, most in ((32, 128), (8, 12), (16, 100)):
    expected = transformers.models.t5.modeling_t5.T5Attention
    expected = expected._relative_position_bucket(
        torch.from_numpy(distances), True, count, most
    )
    found = text_encoder.buckets(distances, count, most)
    np.testing.assert_array_equal(found, expected.numpy())


def test_scores_of_given_frames(small, score):
  codes, num_frames = _codes(), np.array([9, 6])
  found = score(small.variables, codes, num_frames)
  _check_scores(small, np.asarray(found), codes, num_frames)
  assert not np.asarray(found)[1, 6:].any()


def test_logits_of_given_frames(small):
  codes, num_frames = _codes(), np.array([9, 6])

  @jax.jit
  def run(variables):
    states = small.model.encode_text(variables, small.text, _TEXT_LENGTHS)
    context = small.model.context(variables, states, _TEXT_LENGTHS)
    return small.model.logits(variables, codes, num_frames, context)

  found = run(small.variables)
  steps = _delayed(codes, num_frames, codes.max() + 1)
  expected = small.expected(steps[:, :, :-1])
  for b, length in enumerate(num_frames):
    for k in range(codes.shape[2]):
      codec_models.close(found[b, :length, k], expected[b, k, k : k + length])


@pytest.mark.parametrize('prompted', [0, 3])
def test_greedy_codes_with_guidance(small, prompted, monkeypatch):
  """Against transformers' generation, from a text and as a continuation."""
  frames, slots = 10, 4
  prompt, caught = _codes()[:, :prompted], []
  decode = small.theirs.audio_encoder.decode

  def catch(codes, **options):
    caught.append(codes[0].numpy().transpose(0, 2, 1))
    return decode(codes, **options)

  monkeypatch.setattr(small.theirs.audio_encoder, 'decode', catch)
  ids = torch.from_numpy(prompt.transpose(0, 2, 1).reshape(2 * slots, prompted))
  with torch.no_grad():
    small.theirs.generate(
        input_ids=torch.from_numpy(small.text),
        attention_mask=torch.from_numpy(small.text_mask.astype(np.int64)),
        **({'decoder_input_ids': ids.long()} if prompted else {}),
        do_sample=False,
        guidance_scale=3.0,
        # With what stands before the first, and the delays.
        max_length=frames + slots,
        decoder_start_token_id=16,
    )
  context = small.context(small.variables)
  given, mask, most = generation.continue_prompts(
      prompt, np.full(2, prompted), frames
  )

  @jax.jit(compiler_options=_QUICK)
  def run(params, context):
    return generation.generate(
        small.model.decoder,
        params,
        given,
        mask,
        np.full(2, frames),
        jax.random.key(0),
        generation.Sampler(temperature=0.0),
        most,
        context=context,
        null_context=small.model.null_context(context),
        guidance=3.0,
    )[0]

  found = run(small.variables['params'], context)
  np.testing.assert_array_equal(found, caught[0])
  assert len(np.unique(found)) > 4


def test_stereo_codebooks_are_delayed_in_pairs(tmp_path):
  case = _Musicgen(tmp_path, audio_channels=2, num_codebooks=4)
  layout = case.model.decoder.pattern.layout(3, 4)
  prompt = torch.arange(12).reshape(4, 3)
  _, ids = case.theirs.decoder.build_delay_pattern_mask(
      torch.cat([torch.full((4, 1), 16), prompt], dim=1), 16, max_length=5
  )
  exists = layout.scored(np.array([3]))[0]
  frames = np.arange(12, dtype=np.int32).reshape(4, 3).T[None]
  steps = np.where(exists, layout.to_steps(frames)[0], 16)
  np.testing.assert_array_equal(ids[:, 1:].T, steps)


def test_every_leaf_has_one_name(small):
  interop_base.check_complete(interop.FAMILIES['musicgen'], small.model)


def test_saved_weights_load_in_transformers(small, tmp_path):
  # The codec as the file has it.
  model, variables = interop.load_pretrained(small.directory, weight_norm=True)
  interop.save_pretrained(tmp_path, model, variables, 'musicgen')
  again = transformers.MusicgenForConditionalGeneration.from_pretrained(
      tmp_path
  )
  wanted = small.theirs.state_dict()
  assert set(again.state_dict()) == set(wanted)
  for name, value in again.state_dict().items():
    np.testing.assert_allclose(
        value, wanted[name], rtol=1e-6, atol=1e-7, err_msg=name
    )
  loaded, _ = interop.load_pretrained(tmp_path)
  assert (loaded.decoder, loaded.text) == (
      small.model.decoder,
      small.model.text,
  )


def test_any_two_weights_exchanged_show(small, score):
  codes, num_frames = _codes(), np.array([9, 6])

  def run(variables):
    codec = {'codec': small.variables['codec']}
    return np.asarray(score({**variables, **codec}, codes, num_frames))

  rest = {k: v for k, v in small.variables.items() if k != 'codec'}
  language_models.check_exchanged(run, rest)


def test_codes_of_the_codec_decode(small):
  tokens = _codes()
  with torch.no_grad():
    expected = small.theirs.audio_encoder.decode(
        torch.from_numpy(tokens.transpose(0, 2, 1))[None], [None]
    ).audio_values.numpy()
  codec = small.model.codec
  num_frames = np.full(2, 9 * codec.hop)
  given = tokenizers_base.Tokens(num_frames, tokens)
  decode = jax.jit(codec.decode, compiler_options=_QUICK)
  found, _ = decode(small.variables['codec'], given)
  codec_models.close(found, expected.transpose(0, 2, 1))
