"""A session: unfed as `generate`, fed as `score`, row by row."""

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.models import token_lm
from tests.decoders import small
from tests.generation import quick

V, F, K, B = 5, 7, 2, 3
HOT = generation.Sampler(temperature=3.0, repetition_window=2)
KEY = jax.random.key(0)
CODES = np.random.default_rng(0).integers(0, V, (B, F, K)).astype(np.int32)
LENGTHS = np.array([3, 0, 2], np.int32)
LATENCY = {'parallel': 0, 'delay': 2, 'flatten': 0, 'coarse first': F - 1}


@pytest.fixture(scope='module', params=LATENCY)
def model(request):
  """A decoder of each pattern: (name, decoder, parameters)."""
  return request.param, *_model(request.param)


def _model(name):
  decoder = decoder_lib.Decoder(
      (V,) * K, pattern=small.PATTERNS[name], backbone=small.stack()
  )
  ends = np.full(B, F, np.int32)
  return decoder, small.parameters(decoder, CODES, ends)


def _session(model, num_frames=LENGTHS, frames=F, **options):
  prompts = CODES[:, : max(num_frames)]
  return generation.Session(
      *model, prompts, num_frames, frames, KEY, HOT, **options
  )


def _rest(session, steps):
  """[B, n, K] of `steps` steps with nothing given, and of what remains."""
  frames = [session.step() for _ in range(steps)]
  frames = [x[:, None] for x in frames if x is not None]
  return np.concatenate([*frames, session.flush()], axis=1)


def _generated(model, num_frames=LENGTHS, **options):
  given, mask, _ = generation.continue_prompts(CODES, num_frames, F)
  ends = np.full(B, F, np.int32)
  return quick.generate(*model, given, mask, ends, KEY, HOT, **options)


def test_unfed_and_declared_latency_are_those_of_generate(model):
  name, *model = model
  expected = np.asarray(_generated(model, np.zeros(B, np.int32)).codes)
  session = _session(model, np.zeros(B, np.int32))
  assert session.latency == LATENCY[name]
  for number in range(F):
    frame = session.step()
    if number < session.latency:
      assert frame is None
    else:
      np.testing.assert_array_equal(
          frame, expected[:, number - session.latency]
      )
  rest = session.flush()
  np.testing.assert_array_equal(rest, expected[:, F - session.latency :])
  with pytest.raises(ValueError, match='no further frames'):
    session.step()
  session.reset()
  np.testing.assert_array_equal(_rest(session, F), expected)


def test_fed_gives_the_scores_and_the_same_codes(model):
  _, decoder, params = model
  ends = np.full(B, F, np.int32)
  expected = small.scorer(decoder)(params, CODES, ends)
  session = _session((decoder, params), np.zeros(B, np.int32))
  codes, log_prob = [], []
  for number in range(F):
    frame = session.step(CODES[:, number])
    if frame is not None:
      codes.append(frame[:, None])
      log_prob.append(session.log_prob[:, None])
  codes.append(session.flush())
  log_prob.append(session.log_prob)
  np.testing.assert_array_equal(np.concatenate(codes, axis=1), CODES)
  np.testing.assert_allclose(
      np.concatenate(log_prob, axis=1), expected.log_prob, atol=1e-4
  )


def test_some_slots_fed_are_those_given_to_generate():
  model = _model('delay')
  mask = np.zeros((B, F, K), bool)
  mask[..., 1] = True
  ends = np.full(B, F, np.int32)
  expected = quick.generate(*model, CODES, mask, ends, KEY, HOT)
  session = _session(model, np.zeros(B, np.int32))
  frames = [session.step(CODES[:, n], mask[:, n]) for n in range(F)]
  codes = np.stack([*frames[2:], *session.flush().swapaxes(0, 1)], axis=1)
  np.testing.assert_array_equal(codes, expected.codes)


def test_rows_of_other_prompts_and_rows_that_restart():
  """Row 1 restarts: its frames come again, and the others' do not change."""
  model = _model('delay')
  expected = np.asarray(_generated(model).codes)
  session = _session(model, frames=None, cache_length=2 * F)
  first = [session.step() for _ in range(3)]
  session.reset(np.array([False, True, False]))
  later = [session.step() for _ in range(4)]
  for row in (0, 2):
    begun = LENGTHS[row] - 2
    for number, frame in enumerate([*first, *later]):
      if 0 <= begun + number < F:
        np.testing.assert_array_equal(frame[row], expected[row, begun + number])
  assert (first[1][1] == -1).all() and (later[1][1] == -1).all()
  np.testing.assert_array_equal(first[2][1], expected[1, 0])
  rest = [x[1] for x in later[2:]]
  np.testing.assert_array_equal(rest, expected[1, :2])
  assert session.num_frames.tolist() == [10, 4, 9]


def test_rows_stop_each_at_its_own_end():
  model = _model('delay')
  none = np.zeros(B, np.int32)
  free = np.asarray(_generated(model, none).codes)
  stop = generation.Stop(int(free[0, 3, 1]), 1)
  expected = _generated(model, none, stop=stop)
  session = _session(model, none, stop=stop)
  np.testing.assert_array_equal(_rest(session, F), expected.codes)
  assert (session.num_frames == expected.num_frames).all()


def test_sessions_of_a_model_and_what_they_refuse():
  decoder, params = _model('delay')
  lm = token_lm.TokenLM(decoder, params, 1.0)
  session = lm.session(CODES[:, :2], F, seed=3, sampler=HOT)
  expected = lm.generate(CODES[:, :2], F, seed=3, sampler=HOT)
  np.testing.assert_array_equal(_rest(session, F - 2), expected)
  with pytest.raises(ValueError, match='reset all of them'):
    session.reset(np.array([True, False, False]))
  session.reset()
  for given, message in (
      (CODES[:, 0] + V, 'given'),
      (CODES[0], 'expected'),
  ):
    with pytest.raises(ValueError, match=message):
      session.step(given)
  with pytest.raises(ValueError, match='without an end'):
    lm.session(CODES[:, :2])
  early = _session(_model('coarse first'))
  with pytest.raises(ValueError, match='lengths beforehand'):
    early.flush()


def test_slots_that_the_model_observes_must_be_given():
  class Observing(decoder_lib.Decoder):
    predicted = (1,)

  decoder, params = _model('parallel')
  fields = {'pattern': decoder.pattern, 'backbone': decoder.backbone}
  session = _session((Observing((V,) * K, **fields), params))
  with pytest.raises(ValueError, match=r'\[0\] are observed'):
    session.step()


def _conditioned():
  """A model of texts, which come before the frames, and of speakers."""
  conditions = {
      'text': conditioners.Text(how='prefix', source=factors.Text(length=4)),
      'speaker': conditioners.Vector(how='add', source=factors.Vector(2)),
  }
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=small.PATTERNS['delay'],
      backbone=small.stack(),
      conditions=conditions,
  )
  given = {
      'text': ['ab', None, 'c'],
      'speaker': [np.ones(2), None, -np.ones(2)],
  }
  prepared = {k: m.source.prepare(given[k]) for k, m in conditions.items()}
  ends = np.full(B, F, np.int32)
  params = small.parameters(decoder, CODES, ends, None, prepared)
  return token_lm.TokenLM(decoder, params, 1.0), given


def test_conditions_are_those_of_score_and_guidance_that_of_generate():
  lm, given = _conditioned()
  session = lm.session(CODES[:, :0], F, conditions=given)
  log_prob = []
  for number in range(F):
    if session.step(CODES[:, number]) is not None:
      log_prob.append(session.log_prob[:, None])
  session.flush()
  log_prob = np.concatenate([*log_prob, session.log_prob], axis=1)
  expected = lm.score(CODES, conditions=given)['frames'].log_prob
  np.testing.assert_allclose(log_prob, expected, atol=1e-4)
  other = lm.score(CODES)['frames'].log_prob
  assert np.abs(other - expected).max() > 1e-2
  options = {'num_frames': LENGTHS, 'sampler': HOT, 'seed': 2}
  options |= {'conditions': given, 'guidance': 2.5}
  session = lm.session(CODES[:, :3], F, **options)
  codes = lm.generate(CODES[:, :3], F, **options)
  frames = [session.step() for _ in range(F - 3)]
  # Row 0 has the longest prompt, and so comes to its end first.
  session.flush()
  got = [frame[0] for frame in frames]
  np.testing.assert_array_equal(got, codes[0, 1 : F - 2])
  # Nor do the others restart at a step of their own without their conditions.
  session.reset()
  assert session.entered.tolist() == LENGTHS.tolist()
  again = [session.step() for _ in range(F - 3)]
  np.testing.assert_array_equal(frames, again)


def test_a_session_of_unequal_prompts_is_no_stream():
  with pytest.raises(ValueError, match='rows stand at frames'):
    next(iter(_session(_model('delay'))))
