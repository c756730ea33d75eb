"""Weights from elsewhere become the classes of ours, and generate.

What each draws greedily is what its own logits, of the pure model, say of the
codes before: so weights, contexts and segments are where they should be.
"""

import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import generation
from audiolm_jax import interop
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import segment_lm
from audiolm_jax.models import token_lm
from tests.interop import tiny_weights

GREEDY = generation.Sampler(temperature=0.0)


def _both(path, name):
  """(the model by `load`, the pure model, its variables)."""
  tiny_weights.write(path, name)
  return audiolm_jax.load(path), *interop.load_pretrained(path)


def _assert_likeliest(codes, logits, start, slots):
  """From frame `start` on, codes are those that the logits favour."""
  likeliest = np.argmax(logits, axis=-1)[:, start:, slots]
  np.testing.assert_array_equal(codes[:, start:, slots], likeliest)
  assert len(np.unique(likeliest)) > 1


def test_musicgen(tmp_path):
  lm, model, variables = _both(tmp_path, 'musicgen')
  assert isinstance(lm, token_lm.TokenLM)
  ids, lengths = np.arange(10).reshape(2, 5) % 9, np.array([5, 3])
  prompt = np.array([[[3, 1, 4, 1]], [[5, 9, 2, 6]]])
  texts = lm.contexts(ids, lengths)
  codes = lm.generate(prompt, 7, sampler=GREEDY, **texts)
  states = model.encode_text(variables, ids, lengths)
  context = model.context(variables, states, lengths)
  logits = model.logits(variables, codes, np.array([7, 7]), context)
  _assert_likeliest(codes, logits, 1, slice(0, 4))
  # A guided one moves away from no text; the frames are the codec's.
  guided = lm.generate(prompt, 7, sampler=GREEDY, guidance=9.0, **texts)
  assert not np.array_equal(guided, codes)
  assert lm.frame_rate == lm.tokenizer.spec.frame_rate
  assert lm.tokenizer.spec.vocabularies == lm.decoder.vocabularies
  with pytest.raises(ValueError, match='lengths'):
    lm.contexts(ids, np.array([6, 3]))


def test_csm(tmp_path):
  lm, model, variables = _both(tmp_path, 'csm')
  assert isinstance(lm, segment_lm.SegmentLM)
  text = np.array([[3, 1, 5, 2]])
  given = {'text': text[..., None], 'audio': np.ones((1, 6, 4), int)}
  lengths = {'text': np.array([4]), 'audio': np.array([6])}
  shown = {'text': np.array([4]), 'audio': np.array([1])}
  codes = lm.generate(given, lengths, shown, sampler=GREEDY)['audio']
  logits = model.logits(
      variables, text, lengths['text'], codes, lengths['audio']
  )
  _assert_likeliest(codes, logits, 1, slice(0, 4))
  assert isinstance(lm.tokenizer, audio_tokenizer.AudioTokenizer)


def test_moshi_hears_its_user(tmp_path):
  lm, model, variables = _both(tmp_path, 'moshi')
  assert isinstance(lm, token_lm.TokenLM)
  rng = np.random.default_rng(0)
  user, frames = rng.integers(0, 8, (1, 8, 3)), []
  session = lm.session(np.ones((1, 0, 7), int), 8, sampler=GREEDY)
  mask = np.arange(7)[None] > 3
  for i in range(8):
    given = np.zeros((1, 7), int)
    given[:, 4:] = user[:, i]
    frame = session.step(given, mask)
    frames += [] if frame is None else [frame]
  frames += list(np.moveaxis(session.flush(), 1, 0))
  codes = np.stack(frames, axis=1)
  np.testing.assert_array_equal(codes[..., 4:], user)
  logits = model.logits(variables, codes, np.array([8]))
  _assert_likeliest(codes, logits, 0, slice(0, 4))


@pytest.mark.parametrize('name', ['llama', 'mamba2'])
def test_a_language_model_of_texts(tmp_path, name):
  lm, model, variables = _both(tmp_path, name)
  assert lm.frame_rate is None and lm.tokenizer is None
  codes = lm.generate(np.array([[[1], [4]], [[1], [2]]]), 9, sampler=GREEDY)
  logits = np.asarray(model.logits(variables, codes[..., 0]))
  _assert_likeliest(codes[:, 1:], logits[:, :-1, None], 1, slice(0, 1))
