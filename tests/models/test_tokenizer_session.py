"""A tokenizer's session gives what the whole gives, however it is cut."""

import numpy as np
import pytest

from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import base as tokenizers_base
from tests.tokenizers import tiny

HOP, B = tiny.HOP, 2
SAMPLES = 21 * HOP + 5


def _tokenizer(name):
  return audio_tokenizer.AudioTokenizer(*tiny.codec(name))


@pytest.fixture(scope='module', params=['state', 'mirrored'])
def tokenizer(request):
  return _tokenizer(request.param)


def _audio(seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-0.5, 0.5, (B, SAMPLES, 1)).astype(np.float32)


def _pieces(x, seed):
  """x cut along its second axis into pieces of any size, 0 among them."""
  rng, stops = np.random.default_rng(seed), [0]
  while stops[-1] < x.shape[1]:
    most = max(x.shape[1] // 4, 2)
    stops.append(stops[-1] + int(rng.integers(0, most)))
  return np.split(x, stops[1:-1], axis=1)


def _encoded(session, audio, seed):
  tokens = [session.encode(piece) for piece in _pieces(audio, seed)]
  tokens.append(session.flush_encode())
  return [
      np.concatenate([x.codes for x in tokens], axis=1),
      sum(x.num_samples for x in tokens),
  ]


@pytest.mark.parametrize('seed', [0, 1])
def test_all_cuts_give_the_whole(tokenizer, seed):
  audio = _audio()
  whole = tokenizer.encode(audio)
  session = tokenizer.session(B)
  codes, num_samples = _encoded(session, audio, seed)
  np.testing.assert_array_equal(codes, whole.codes)
  assert len(np.unique(codes)) > 4
  assert num_samples.tolist() == [SAMPLES] * B
  expected, _ = tokenizer.decode(whole)
  sound = [session.decode(piece) for piece in _pieces(codes, seed)]
  sound = np.concatenate([*sound, session.flush_decode()], axis=1)
  assert sound.shape[1] == codes.shape[1] * HOP + session.latency
  assert (sound[:, : session.latency] == 0).all()
  np.testing.assert_allclose(
      sound[:, session.latency :][:, :SAMPLES],
      expected[:, :SAMPLES],
      atol=1e-5,
  )
  assert np.abs(expected).max() > 1e-2


def test_what_is_whole_comes_at_once():
  session = _tokenizer('state').session(B)
  assert session.block == 1 and session.latency == HOP
  audio = _audio()
  assert session.encode(audio[:, : HOP - 1]).codes.shape == (B, 0, 3)
  tokens = session.encode(audio[:, HOP - 1 : 2 * HOP + 1])
  assert tokens.codes.shape == (B, 2, 3)
  sound = session.decode(tokens.codes)
  assert sound.shape == (B, 2 * HOP, 1)
  assert (sound[:, :HOP] == 0).all() and (sound[:, HOP:] != 0).any()


def test_a_row_restarts_and_the_others_do_not():
  tokenizer = _tokenizer('state')
  audio = _audio()[:, : 8 * HOP]
  whole = tokenizer.encode(audio).codes
  expected, _ = tokenizer.decode(tokenizer.encode(audio))
  session = tokenizer.session(B)
  first = session.encode(audio[:, : 4 * HOP]).codes
  sound = session.decode(first)
  session.reset(np.array([False, True]))
  later = audio[:, 4 * HOP :].copy()
  later[1] = audio[1, : 4 * HOP]
  codes = session.encode(later).codes
  np.testing.assert_array_equal(codes[0], whole[0, 4:])
  np.testing.assert_array_equal(codes[1], whole[1, :4])
  sound = np.concatenate([sound, session.decode(codes)], axis=1)
  lag = session.latency
  np.testing.assert_allclose(
      sound[0, lag:], expected[0, : 8 * HOP - lag], atol=1e-5
  )
  np.testing.assert_allclose(
      sound[1, 4 * HOP + lag :], expected[1, : 4 * HOP - lag], atol=1e-5
  )
  assert (sound[1, 4 * HOP : 4 * HOP + lag] == 0).all()
  session.flush_decode()
  with pytest.raises(ValueError, match='decode: the rows have ended'):
    session.decode(codes)
  with pytest.raises(ValueError, match='reset all rows'):
    session.reset(np.array([False, True]))
  session.reset()
  again, _ = _encoded(session, audio, 3)
  np.testing.assert_array_equal(again, whole)
  session.reset()
  session.encode(audio[:, :3])
  with pytest.raises(ValueError, match='3 samples and 0 frames wait'):
    session.reset(np.array([False, True]))


def test_what_has_no_session_or_is_no_audio_is_refused():
  for name in ('reach', 'segments', 'unbounded'):
    with pytest.raises(ValueError, match='Codec: this tokenizer looks ahead'):
      _tokenizer(name).session()
  session = _tokenizer('state').session(B)
  audio = _audio()
  with pytest.raises(ValueError, match='expected 2 rows'):
    session.encode(audio[:1])
  with pytest.raises(ValueError, match='not finite'):
    session.encode(audio * np.nan)
  with pytest.raises(ValueError, match='slot 0'):
    session.decode(np.full((B, 1, 3), 99))


@pytest.mark.parametrize('name', ['state', 'segments'])
def test_frames_are_sounded_while_they_come(name):
  tokenizer = _tokenizer(name)
  # Three segments, where there are some.
  audio = np.tile(_audio(), (1, 2, 1))
  tokens = tokenizer.encode(audio)
  codes = tokens.codes[:1, : len(tokens.codes[0]) // 11 * 11]
  sound, come = [], []

  def frames():
    for frame in codes.swapaxes(0, 1):
      come.append(len(sound))
      yield frame

  tokenizer.decode_frames(frames(), sound.append)
  assert come[-1] > 0
  sound = np.concatenate(sound, axis=1)
  samples = int(tokenizer.spec.samples(codes.shape[1]))
  assert sound.shape == (1, samples, 1)
  tokens = tokenizers_base.Tokens(num_samples=np.array([samples]), codes=codes)
  expected, _ = tokenizer.decode(tokens)
  np.testing.assert_allclose(sound, expected[:, :samples], atol=1e-5)
