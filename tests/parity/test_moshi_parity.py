"""Moshi: the same weights in transformers and here."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import generation  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity

_DEPTH = {
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'ffn_dim': 20,
    'rms_norm_eps': 0.05,
    'sliding_window': 3,
    'vocab_size': 30,
    'audio_vocab_size': 11,
    'num_codebooks': 3,
    'input_size': 16,
}
_SIZES = {
    'vocab_size': 30,
    'audio_vocab_size': 11,
    'num_codebooks': 3,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'ffn_dim': 24,
    'rms_norm_eps': 0.03,
    'sliding_window': 40,
    'max_position_embeddings': 40,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 50.0},
}
_LENGTHS = np.array([7, 4])


@pytest.fixture(scope='module', name='small')
def _small(tmp_path_factory):
  """(transformers' model, where it lies, ours, its variables)."""
  config = transformers.MoshiConfig(
      **_SIZES,
      audio_encoder_config=transformers.MimiConfig(**codec_models.TINY_MIMI),
      depth_decoder_config=_DEPTH,
  )
  theirs = transformers.MoshiForConditionalGeneration(config)
  codec_models.randomise(theirs.audio_encoder)
  codec = {k: v.clone() for k, v in theirs.audio_encoder.state_dict().items()}
  language_models.randomise(theirs)
  theirs.audio_encoder.load_state_dict(codec)
  directory = tmp_path_factory.mktemp('moshi')
  theirs.save_pretrained(directory)
  return theirs, directory, *interop.load_pretrained(directory)


def _codes():
  """Text, Moshi's three codebooks and the user's."""
  rng = np.random.default_rng(0)
  text = rng.integers(0, 30, (2, 7, 1), np.int32)
  return np.concatenate(
      [text, rng.integers(0, 11, (2, 7, 6), np.int32)], axis=-1
  )


@pytest.fixture(scope='module', name='score')
def _score(small):
  def run(variables):
    scores = small[2].score(variables, _codes(), _LENGTHS)['frames']
    return scores.log_prob, scores.mask

  return jax.jit(run, compiler_options=testing.quick_options())


_DELAYS = [0, 0, 1, 1, 0, 1, 1]


def _steps(codes, frames):
  """[F + 2, 7]: a step of fill, and then each slot in its delay."""
  steps = torch.tensor([30] + [11] * 6).repeat(frames + 2, 1)
  for k, delay in enumerate(_DELAYS):
    steps[1 + delay : 1 + delay + frames, k] = torch.from_numpy(codes[:, k])
  return steps


def _states(theirs, steps):
  """What the backbone gives for [N, 7] steps, [1, N, D]."""
  inputs = theirs.decoder.model.embed_tokens(steps[None, :, 0])
  for k, embed in enumerate(theirs.embed_tokens):
    inputs = inputs + embed(steps[None, :, 1 + k])
  return theirs.decoder.model(inputs_embeds=inputs).last_hidden_state


def _logits(theirs, codes):
  """Of one row's text [F, V] and own codebooks [F, 3, V]."""
  frames = len(codes)
  steps = _steps(codes, frames)
  with torch.no_grad():
    states = _states(theirs, steps[:-1])
    text = theirs.decoder.lm_head(states)[0, :frames]
    audio = theirs.depth_decoder(
        input_ids=steps[1:, :3], last_hidden_state=states[0][:, None]
    ).logits
  delayed = [audio[d : d + frames, k] for k, d in enumerate(_DELAYS[1:4])]
  return text, torch.stack(delayed, dim=1)


def _expected(theirs, codes):
  """Log-probabilities [F, 4] of one row's text and own codebooks."""
  text, audio = (x.log_softmax(-1) for x in _logits(theirs, codes))
  codes = torch.from_numpy(codes[:, :4]).long()
  text = text.gather(-1, codes[:, :1])
  audio = audio.gather(-1, codes[:, 1:, None])[..., 0]
  return torch.cat([text, audio], dim=1).numpy()


def test_logits_of_text_and_own_codes(small):
  run = jax.jit(small[2].logits, compiler_options=testing.quick_options())
  found = np.asarray(run(small[3], _codes(), _LENGTHS))
  for row, length in enumerate(_LENGTHS):
    text, audio = _logits(small[0], _codes()[row, :length])
    codec_models.close(found[row, :length, 0, : text.shape[1]], text)
    codes = audio.shape[2]
    codec_models.close(found[row, :length, 1:4, :codes], audio)
    assert np.isneginf(found[row, :length, 1:4, codes:]).all()
  # The user's are given.
  assert np.isneginf(found[:, :, 4:]).all()


def test_scores_of_text_and_own_codes(small, score):
  found, mask = map(np.asarray, score(small[3]))
  for row, length in enumerate(_LENGTHS):
    expected = _expected(small[0], _codes()[row, :length])
    codec_models.close(found[row, :length, :4], expected)
    assert mask[row, :length, :4].all()
    assert not found[row, length:].any()
  assert not mask[..., 4:].any()


def test_greedy_answers_to_a_user(small):
  """Text and own codes, while the user's are given."""
  theirs, _, model, variables = small
  given, frames, margins = _codes()[:1], 7, []
  steps = _steps(given[0], frames)
  steps[1:, :4] = torch.tensor([30, 11, 11, 11])

  def best(logits):
    margins.append(logits.topk(2).values.diff().abs().item())
    return logits.argmax()

  with torch.no_grad():
    for n in range(1, frames + 2):
      state = _states(theirs, steps[:n])[:, -1:]
      if n <= frames:
        steps[n, 0] = best(theirs.decoder.lm_head(state)[0, 0])
      for k in range(3):
        if 0 <= n - 1 - _DELAYS[1 + k] < frames:
          logits = theirs.depth_decoder(
              input_ids=steps[n : n + 1, : k + 1], last_hidden_state=state
          ).logits
          steps[n, 1 + k] = best(logits[0, -1])
  assert min(margins) > 1e-3
  expected = given.copy()
  for k in range(4):
    expected[0, :, k] = steps[1 + _DELAYS[k] :][:frames, k]
  known = np.broadcast_to(np.arange(7) >= 4, given.shape)

  @jax.jit(compiler_options=testing.quick_options())
  def run(params):
    sampler = generation.Sampler(temperature=0.0)
    num_frames, rng = np.full(1, frames), jax.random.key(0)
    return generation.generate(
        model.decoder, params, given, known, num_frames, rng, sampler
    )

  found = run(variables['params'])
  np.testing.assert_array_equal(found.codes, expected)
  assert (expected != given)[..., :4].mean() > 0.5


def test_every_leaf_has_one_name(small):
  interop_base.check_complete(interop.FAMILIES['moshi'], small[2])


def test_saved_weights_load_in_transformers(small, tmp_path):
  theirs, _, model, variables = small
  interop.save_pretrained(tmp_path, model, variables, 'moshi')
  again = transformers.MoshiForConditionalGeneration.from_pretrained(tmp_path)
  wanted = theirs.state_dict()
  assert set(again.state_dict()) == set(wanted)
  for name, value in again.state_dict().items():
    np.testing.assert_allclose(
        value, wanted[name], rtol=1e-6, atol=1e-7, err_msg=name
    )
  scale = variables['params']['head']['place_2']['layer_0']['mlp_norm']['scale']
  other = jax.tree.map(lambda w: w + 1 if w is scale else w, variables)
  with pytest.raises(interop.PretrainedError, match='one for all places'):
    interop.save_pretrained(tmp_path, model, other, 'moshi')


def test_any_two_weights_exchanged_show(small, score):
  # Norms of all places are one tensor; the first place sees only itself.
  variables = {'params': small[3]['params']}
  codec = {'codec': small[3]['codec']}
  language_models.check_exchanged(
      lambda v: score({**v, **codec})[0],
      variables,
      free='place_1.*query',
      same=True,
  )
