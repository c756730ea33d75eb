"""A session of segments: unfed as `generate`, fed as `score`, row by row."""

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import segmented
from audiolm_jax.models import segment_lm
from audiolm_jax.models import token_lm
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small
from tests.generation import quick

V, B = 5, 4
LENGTHS = {
    'text': np.array([3, 1, 0, 2], np.int32),
    'speech': np.array([4, 2, 3, 0], np.int32),
}
TOTALS = LENGTHS['text'] + LENGTHS['speech']
SLOTS = {'text': [0], 'speech': [1, 2]}
NONE = dict.fromkeys(LENGTHS, np.zeros(B, np.int32))
HOT = generation.Sampler(temperature=3.0, repetition_window=2)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
CODES = {
    'text': RNG.integers(0, V, (B, 3, 1)).astype(np.int32),
    'speech': RNG.integers(0, V, (B, 4, 2)).astype(np.int32),
}
# (role of the text, chunks): the last takes turns of two steps.
KINDS = {'text first': ('observe', None), 'turns': ('predict', 2)}
# Speech is delayed by 1. In turns, a frame of text goes in meanwhile, too.
LATENCY = {'text first': 1, 'turns': 2}


def _model(kind, head='independent'):
  role, chunk = KINDS[kind]
  text = sequence_lib.Segment('text', (0,), role=role, chunk=chunk)
  delay = interleaving.Delay()
  speech = sequence_lib.Segment('speech', (1, 2), delay, chunk=chunk)
  decoder = segmented.Segmented(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence((text, speech)),
      head=small.HEADS[head],
      backbone=small.stack(),
  )
  return decoder, small.parameters(decoder, CODES, LENGTHS)


@pytest.fixture(scope='module', params=KINDS)
def model(request):
  """A decoder of segments: (name, decoder, parameters)."""
  return request.param, *_model(request.param)


def _masks(shown):
  return {
      label: np.broadcast_to(
          np.arange(codes.shape[1])[:, None] < shown[label][:, None, None],
          codes.shape,
      )
      for label, codes in CODES.items()
  }


def _session(model, shown, **options):
  return generation.SegmentSession(
      *model, CODES, _masks(shown), LENGTHS, KEY, HOT, **options
  )


def _generated(model, shown, **options):
  rest = CODES, _masks(shown), LENGTHS, KEY, HOT
  return quick.generate(*model, *rest, **options)


def _in_order(kind, parts, row):
  """A row's frames [n, 3] in the order in which its steps come to them."""
  parts = {k: np.asarray(v)[row, : LENGTHS[k][row]] for k, v in parts.items()}
  order = {'text first': 'TTTSSSS', 'turns': 'TTSSTSS'}[kind]
  if kind == 'turns' and LENGTHS['text'][row] < 3:
    order = 'TTSSSS'
  frames, at = [], dict.fromkeys(parts, 0)
  for label in ({'T': 'text', 'S': 'speech'}[c] for c in order):
    if at[label] < len(parts[label]):
      frame = np.full(3, -1, parts[label].dtype)
      frame[SLOTS[label]] = parts[label][at[label]]
      frames.append(frame)
      at[label] += 1
  return np.array(frames).reshape(-1, 3)


def _stepped(session, count, feed=None):
  """What `count` steps and a flush give: codes and log-probabilities by row.

  Args:
    session: of rows that have taken in nothing.
    count: steps.
    feed: for the number of a frame, what `step` is given.
  """
  codes, log_prob, segments = [], [], []
  for number in range(count):
    frame = session.step(*(feed(number) if feed else ()))
    assert (frame is None) == (number < session.latency)
    if frame is not None:
      codes.append(frame[:, None])
      log_prob.append(session.log_prob[:, None])
      segments.append(session.segments[:, None])
  codes.append(session.flush())
  log_prob.append(session.log_prob)
  segments.append(session.segments)
  return (np.concatenate(x, axis=1) for x in (codes, log_prob, segments))


def _check(kind, found, expected):
  for row in range(B):
    own = _in_order(kind, expected, row)
    np.testing.assert_array_equal(found[row, : len(own)], own)
    # No more frames than the row has.
    assert (found[row, len(own) :] == -1).all()


def test_unfed_they_are_those_of_generate(model):
  """The text is known beforehand, or drawn as all else is."""
  kind, *model = model
  known = NONE | {'text': LENGTHS['text']} if kind == 'text first' else NONE
  expected = _generated(model, known).codes
  session = _session(model, known)
  assert session.latency == LATENCY[kind]
  if kind == 'text first':
    # All of it was taken in at once.
    assert session.entered.tolist() == LENGTHS['text'].tolist()
    frames = [session.step() for _ in range(4)]
    late = session.flush()
    for row in range(B):
      begun = LENGTHS['text'][row] - session.latency
      own = _in_order(kind, expected, row)
      got = [x[row] for x in (*frames, *late.swapaxes(0, 1)) if x is not None]
      got = got[max(-begun, 0) :]
      wanted = own[max(begun, 0) :]
      np.testing.assert_array_equal(got[: len(wanted)], wanted)
    np.testing.assert_array_equal(session.num_frames, TOTALS)
  else:
    found, _, segments = _stepped(session, max(TOTALS))
    _check(kind, found, expected)
    assert segments[0].tolist() == [0, 0, 1, 1, 0, 1, 1]
    session.reset()
    again, *_ = _stepped(session, max(TOTALS))
    np.testing.assert_array_equal(again, found)


def test_fed_they_have_the_scores_and_the_same_codes(model):
  kind, decoder, params = model
  scores = small.scorer(decoder)(params, CODES, LENGTHS)
  fed = [_in_order(kind, CODES, row) for row in range(B)]

  def feed(number):
    frame = [x[number] if number < len(x) else np.full(3, 99) for x in fed]
    # Slots that a frame does not have are not looked at.
    return (np.where(np.array(frame) < 0, 99, frame),)

  session = _session((decoder, params), NONE)
  found, log_prob, _ = _stepped(session, max(TOTALS), feed)
  _check(kind, found, CODES)
  missing = np.zeros(CODES['text'].shape)
  parts = {'text': missing, **{k: s.log_prob for k, s in scores.items()}}
  for row in range(B):
    wanted = _in_order(kind, parts, row)
    own = log_prob[row, : len(wanted)]
    predicted = found[row, : len(wanted)] >= 0
    if kind == 'text first':
      predicted[:, 0] = False
    np.testing.assert_allclose(
        own[predicted], wanted[predicted], rtol=1e-4, atol=1e-5
    )


def test_some_slots_fed_are_those_given_to_generate():
  """Of a live user: one of the two slots that the model would draw."""
  model = _model('turns')
  mask = {k: np.zeros(c.shape, bool) for k, c in CODES.items()}
  mask['speech'][..., 1] = True
  expected = quick.generate(*model, CODES, mask, LENGTHS, KEY, HOT).codes
  fed = [_in_order('turns', CODES, row) for row in range(B)]

  def feed(number):
    frame = [x[number] if number < len(x) else np.full(3, -1) for x in fed]
    return np.array(frame), np.tile([False, False, True], (B, 1))

  found, *_ = _stepped(_session(model, NONE), max(TOTALS), feed)
  _check('turns', found, expected)


def test_prompts_after_a_gap_are_taken_in_in_their_turn():
  """All of the text is known, but in turns speech comes before its end."""
  model = _model('turns')
  known = NONE | {'text': LENGTHS['text']}
  expected = _generated(model, known).codes
  session = _session(model, known)
  assert session.entered.tolist() == [2, 1, 0, 2]
  for row, shown in enumerate(session.entered):
    own = _in_order('turns', CODES, row)[:shown]
    np.testing.assert_array_equal(session.prompts[row, :shown], own)
  # By the number of the frame that comes out of each row.
  found = np.full((B, max(TOTALS), 3), -1)
  rows = np.arange(B)

  def keep(codes):
    for n, frame in zip(session.number.reshape(B, -1).T, codes, strict=True):
      own = (n >= 0) & (n < max(TOTALS))
      found[rows[own], n[own]] = frame[own]

  while (session.entered < TOTALS).any():
    codes = session.step()
    if codes is not None:
      keep([codes])
  keep(session.flush().swapaxes(0, 1))
  _check('turns', found, expected)


def test_rows_at_their_ends_give_nothing_while_others_go_on(model):
  """Rows of 7, 3, 3 and 2 frames: what a caller sees of each, step by step."""
  _, *model = model
  session = _session(model, NONE)
  late, fed = session.latency, np.zeros((B, 3), int)
  for number in range(max(TOTALS)):
    # What is given to rows without a frame is not looked at.
    fed[number >= TOTALS] = 99
    frame = session.step(fed)
    np.testing.assert_array_equal(
        session.num_frames, np.minimum(number + 1, TOTALS)
    )
    if frame is not None:
      has = (number - late >= 0) & (number - late < TOTALS)
      np.testing.assert_array_equal((frame >= 0).any(axis=1), has)
      np.testing.assert_array_equal(session.segments >= 0, has)
      assert (session.number == number - late).all()
      assert (session.log_prob[~has] == 0).all()
  rest = session.flush()
  has = session.number < TOTALS[:, None]
  np.testing.assert_array_equal((rest >= 0).any(axis=2), has)
  assert (session.log_prob[~has] == 0).all()


def test_rows_that_restart_and_others_that_do_not_change():
  model = _model('text first')
  known = NONE | {'text': LENGTHS['text']}
  session = _session(model, known)
  first = [session.step() for _ in range(2)]
  session.reset(np.array([True, False, False, False]))
  assert session.entered.tolist() == [3, 3, 2, 4]
  later = [session.step() for _ in range(2)]
  assert first[0][0].tolist() == later[0][0].tolist()
  assert first[1][0].tolist() == later[1][0].tolist()
  expected = _in_order('text first', _generated(model, known).codes, 2)
  np.testing.assert_array_equal([x[2] for x in (first[1], *later)], expected)


def test_the_last_segment_stops_and_may_end_early():
  model = _model('text first')
  known = NONE | {'text': LENGTHS['text']}
  free = np.asarray(_generated(model, known).codes['speech'])
  stop = generation.Stop(int(free[0, 1, 0]), 1)
  expected = _generated(model, known, stop=stop)
  session = _session(model, known, stop=stop)
  frames = [session.step() for _ in range(4)]
  frames = np.stack([*frames, *session.flush().swapaxes(0, 1)], axis=1)
  speech = frames[0, 1:, 1:]
  np.testing.assert_array_equal(speech, np.asarray(expected.codes['speech'])[0])
  ends = LENGTHS['text'] + np.asarray(expected.num_frames['speech'])
  assert (session.num_frames == ends).all() and (ends < TOTALS).any()
  # Who listens has heard enough: the same frames as of rows that short.
  session = _session(model, known)
  session.step()
  late = session.flush()
  ends = np.minimum(LENGTHS['text'] + 1, TOTALS)
  assert session.num_frames.tolist() == ends.tolist()
  rest = CODES, _masks(known)
  lengths = LENGTHS | {'speech': ends - LENGTHS['text']}
  short = quick.generate(*model, *rest, lengths, KEY, HOT).codes['speech']
  np.testing.assert_array_equal(late[:3, 0, 1:], short[:3, 0])
  turns = _session(_model('turns'), NONE)
  turns.step()
  with pytest.raises(ValueError, match='can not end before'):
    turns.flush()


def test_a_session_of_a_model_of_segments():
  lm = segment_lm.SegmentLM(*_model('text first'), 1.0)
  own = {k: v[:1] for k, v in LENGTHS.items()}
  given = {k: v[:1] for k, v in CODES.items()}
  shown = {'text': own['text'], 'speech': np.zeros(1, int)}
  expected = lm.generate(given, own, shown, seed=3, sampler=HOT)
  prompts = {'text': given['text']}
  session = lm.session(prompts, own, seed=3, sampler=HOT)
  found = np.concatenate(list(session))
  np.testing.assert_array_equal(found, _in_order('text first', expected, 0))
  with pytest.raises(
      ValueError, match=r"expected segments \['speech', 'text'\]"
  ):
    lm.session({'music': given['text']}, own)
  with pytest.raises(ValueError, match=r'text: \[3\] of \[2\] frames'):
    lm.session(prompts, own | {'text': np.array([2])})
  with pytest.raises(ValueError, match=r'\[0\] are observed'):
    lm.session({}, own).step()
  with pytest.raises(ValueError, match='given: slot 0'):
    lm.session({}, own).step(np.full((1, 3), V))
  none = {k: 0 * v for k, v in own.items()}
  with pytest.raises(ValueError, match='no row has a frame'):
    lm.session({}, none)


def _stage(segments):
  """A stage of three slots, with codes of two rows of four frames."""
  decoder = segmented.Staged(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence(segments),
      backbone=small.stack(),
  )
  codes = RNG.integers(0, V, (2, 4, 3)).astype(np.int32)
  ends = np.full(2, 4, np.int32)
  params = small.parameters(decoder, codes, ends)
  return token_lm.StageLM(decoder, params, 1.0), codes


def _went_on(session, codes, mask):
  """All frames of a stage's session that is fed those codes where `mask`."""
  found = np.zeros(codes.shape, int)

  def keep(frames):
    numbers = session.number.reshape(len(codes), -1)
    frames = frames.reshape(*numbers.shape, codes.shape[2])
    for row, n in np.ndindex(numbers.shape):
      if 0 <= numbers[row, n] < codes.shape[1]:
        found[row, numbers[row, n]] = frames[row, n]

  while (session.entered < codes.shape[1]).any():
    at = np.arange(len(codes)), np.minimum(session.entered, 3)
    frame = session.step(codes[at], mask)
    if frame is not None:
      keep(frame)
  keep(session.flush())
  return found


@pytest.mark.parametrize('chunk, latency', [(1, 0), (None, 3)])
def test_a_stage_goes_on_from_the_codes_of_another(chunk, latency):
  """Frame by frame where its segments take turns, and else at the end."""
  lm, codes = _stage(
      (
          sequence_lib.Segment('coarse', (0,), role='observe', chunk=chunk),
          sequence_lib.Segment('fine', (1, 2), chunk=chunk),
      )
  )
  shown = np.array([1, 0])
  expected = lm.generate(codes, shown=shown, seed=2, sampler=HOT)
  session = lm.session(codes[:, :1], 4, num_frames=shown, seed=2, sampler=HOT)
  assert session.latency == latency
  mask = np.tile([True, False, False], (2, 1))
  with pytest.raises(ValueError, match=r'\[0\] are observed'):
    session.step()
  found = _went_on(session, codes, mask)
  found[0, 0] = session.prompts[0, 0]
  np.testing.assert_array_equal(found, expected)
  assert (session.segments == -1).all()
  with pytest.raises(ValueError, match='must know where rows end'):
    lm.session(codes[:, :1])


@pytest.mark.parametrize(
    'chunks, latency', [((1, 1, 1), 0), ((1, 1, None), 3), ((None, 1, 1), 3)]
)
def test_a_stage_of_three_segments_goes_on(chunks, latency):
  """Two of them predicted, one after the other, in turns, or both."""
  roles = ('observe', 'predict', 'predict')
  lm, codes = _stage(
      tuple(
          sequence_lib.Segment(f's{k}', (k,), role=role, chunk=chunk)
          for k, (role, chunk) in enumerate(zip(roles, chunks, strict=True))
      )
  )
  expected = lm.generate(codes, seed=2, sampler=HOT)
  session = lm.session(codes[:, :0], 4, seed=2, sampler=HOT)
  assert session.latency == latency
  found = _went_on(session, codes, np.tile([True, False, False], (2, 1)))
  np.testing.assert_array_equal(found, expected)
  # Fed with all slots, what is predicted has the scores.
  wanted = lm.score(codes)['frames']
  session = lm.session(codes[:, :0], 4)
  frames = []
  for number in range(4):
    if session.step(codes[:, number]) is not None:
      frames.append(session.log_prob[:, None])
  session.flush()
  frames = np.concatenate([*frames, session.log_prob], axis=1)
  np.testing.assert_allclose(
      frames[..., 1:], wanted.log_prob[..., 1:], rtol=1e-4, atol=1e-5
  )


def test_a_pattern_that_must_know_its_end_ends_there():
  speech = sequence_lib.Segment('speech', (1, 2), coarse_first.CoarseFirst())
  text = sequence_lib.Segment('text', (0,))
  decoder = segmented.Segmented(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence((text, speech)),
      backbone=small.stack(),
  )
  model = decoder, small.parameters(decoder, CODES, LENGTHS)
  expected = _generated(model, NONE).codes
  session = _session(model, NONE)
  # Of four frames, the second slots come after the last one's first.
  assert session.latency == 3
  found, *_ = _stepped(session, max(TOTALS))
  _check('text first', found, expected)
