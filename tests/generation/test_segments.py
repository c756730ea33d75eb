"""Segments are generated as they are scored."""

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import segmented
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small
from tests.generation import quick

V = 5
FRAMES = {'text': 3, 'speech': 4}
LENGTHS = {
    'text': np.array([3, 1, 0, 2], np.int32),
    'speech': np.array([4, 2, 3, 0], np.int32),
}
WARM = generation.Sampler(temperature=2.0)
GREEDY = generation.Sampler(temperature=0.0)


def _decoder(
    kind=segmented.Segmented, role='observe', chunk=None, backbone=None
):
  text = sequence_lib.Segment('text', (0,), role=role, chunk=chunk)
  speech = sequence_lib.Segment(
      'speech', (1, 2), interleaving.Delay(), chunk=chunk
  )
  return kind(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence((text, speech)),
      head=small.HEADS['depth'],
      backbone=backbone or small.stack(),
  )


def _given(shown):
  rng = np.random.default_rng(0)
  codes = {
      'text': rng.integers(0, V, (4, 3, 1)).astype(np.int32),
      'speech': rng.integers(0, V, (4, 4, 2)).astype(np.int32),
  }
  masks = {
      name: np.broadcast_to(
          np.arange(c.shape[1])[:, None] < shown[name], c.shape
      )
      for name, c in codes.items()
  }
  return codes, masks


def _params(decoder, *context):
  codes, _ = _given(FRAMES)
  return small.parameters(decoder, codes, LENGTHS, *context)


def _generate(
    model, given, num_frames=LENGTHS, seed=0, sampler=WARM, **options
):
  """What a model, (decoder, params), makes of what `_given` gave."""
  key = jax.random.key(seed)
  return quick.generate(*model, *given, num_frames, key, sampler, **options)


@pytest.fixture(scope='module', name='turns')
def _turns():
  decoder = _decoder(role='predict', chunk=1)
  return decoder, _params(decoder)


def test_generated_codes_have_the_scores_of_a_whole_sequence(turns):
  decoder, params = turns
  given, mask = _given({'text': 1, 'speech': 2})
  codes, log_prob, _ = _generate(turns, (given, mask))
  scores = small.scorer(decoder)(params, codes, LENGTHS)
  for name in FRAMES:
    found = np.asarray(codes[name])
    valid = np.arange(found.shape[1])[:, None] < LENGTHS[name][:, None, None]
    valid = np.broadcast_to(valid, found.shape)
    kept = mask[name] & valid
    np.testing.assert_array_equal(found[kept], given[name][kept])
    assert (found[~valid] == 0).all()
    np.testing.assert_allclose(
        log_prob[name], scores[name].log_prob, rtol=1e-4, atol=1e-5
    )


def test_greedy_codes_are_the_likeliest_given_those_before():
  decoder = _decoder()
  params = _params(decoder)
  codes, log_prob, _ = _generate(
      (decoder, params), _given({'text': 3, 'speech': 0}), sampler=GREEDY
  )
  # What was observed was taken in at once.
  assert (np.asarray(log_prob['text']) == 0).all()
  score = small.scorer(decoder)
  layout = interleaving.Delay().layout(4, 2)
  own = score(params, codes, LENGTHS)['speech'].log_prob
  for frame, slot in np.ndindex(4, 2):
    for code in range(V):
      other = {k: np.array(c) for k, c in codes.items()}
      other['speech'][:, frame, slot] = code
      found = score(params, other, LENGTHS)['speech'].log_prob
      gain = np.asarray(found - own)[:, frame, slot]
      assert (gain < 1e-5).all(), (layout.step[frame, slot], code)


def test_a_row_draws_the_same_beside_others_and_again(turns):
  given, mask = _given({'text': 1, 'speech': 0})

  def run(seed, given=given, num_frames=LENGTHS):
    found = _generate(turns, (given, mask), num_frames, seed)
    return np.asarray(found.codes['speech'])

  whole = run(0)
  np.testing.assert_array_equal(whole, run(0))
  assert (whole != run(1)).any()
  other = {k: np.concatenate([c[:2], c[:1], c[:1]]) for k, c in given.items()}
  num_frames = {
      k: np.append(n[:2], [1, 2]).astype(np.int32) for k, n in LENGTHS.items()
  }
  np.testing.assert_array_equal(whole[:2], run(0, other, num_frames)[:2])


def test_a_stage_fills_the_slots_that_it_predicts():
  decoder = _decoder(segmented.Staged)
  rng = np.random.default_rng(0)
  given = rng.integers(0, V, (3, 4, 3)).astype(np.int32)
  num_frames = np.array([4, 2, 0], np.int32)
  mask = np.zeros(given.shape, bool)
  mask[..., 0] = True
  mask[:, :1] = True
  params = small.parameters(decoder, given, num_frames)
  codes, log_prob, lengths = _generate(
      (decoder, params), (given, mask), num_frames
  )
  np.testing.assert_array_equal(lengths, num_frames)
  valid = np.arange(4)[:, None] < num_frames[:, None, None]
  kept = mask & valid
  np.testing.assert_array_equal(np.asarray(codes)[kept], given[kept])
  drawn = ~mask & valid
  wanted = np.asarray(small.scorer(decoder)(params, codes, num_frames).log_prob)
  np.testing.assert_allclose(
      np.asarray(log_prob)[drawn], wanted[drawn], rtol=1e-4, atol=1e-5
  )
  assert np.ptp(np.asarray(codes)[0, 1:, 1:]) > 0


def _film(scale=1.0):
  film = np.random.default_rng(1).normal(size=(4, 3))
  return {'film': (scale * film).astype(np.float32)}


def test_the_last_segment_stops_as_if_its_end_had_been_known():
  # A depth head would have shown the code that ends a row to its own step.
  decoder = _decoder().clone(head=small.HEADS['independent'])
  model = decoder, _params(decoder)
  given = _given({'text': 3, 'speech': 1})
  # The slot that comes first: nothing past the end has begun by then.
  free = np.asarray(_generate(model, given).codes['speech'])[..., 0]
  code = int(free[0, 2])
  found = _generate(model, given, stop=generation.Stop(code, 1))
  hits = (free == code) & (np.arange(4) >= 1)
  first = np.where(hits.any(axis=1), np.argmax(hits, axis=1), 4)
  first = np.minimum(first, LENGTHS['speech']).astype(np.int32)
  assert (first < LENGTHS['speech']).any()
  np.testing.assert_array_equal(found.num_frames['speech'], first)
  known = _generate(model, given, {**LENGTHS, 'speech': first})
  # A row that ends where its given frames do: a length that is known leaves
  # their delayed codes unscored, a stop has scored them by then.
  log_prob = found.log_prob['speech'], known.log_prob['speech']
  np.testing.assert_array_equal(*(np.asarray(p)[:, 1:] for p in log_prob))
  found, known = (r._replace(log_prob=None) for r in (found, known))
  jax.tree.map(np.testing.assert_array_equal, found, known)


def test_a_frame_of_one_code_in_all_slots_ends_a_turn():
  """As CSM's: a code in one of the slots does not."""
  text = sequence_lib.Segment('text', (0,), role='observe')
  speech = sequence_lib.Segment('speech', (1, 2))
  decoder = segmented.Segmented(
      vocabularies=(2,) * 3,
      sequence=sequence_lib.Sequence((text, speech)),
      head=small.HEADS['depth'],
      backbone=small.stack(),
  )
  rng = np.random.default_rng(0)
  given = {
      'text': rng.integers(0, 2, (6, 2, 1), np.int32),
      'speech': np.zeros((6, 9, 2), np.int32),
  }
  mask = {'text': given['text'] >= 0, 'speech': given['speech'] > 0}
  # A frame that is given ends no turn.
  mask['speech'][:, 0] = True
  num_frames = {'text': np.full(6, 2), 'speech': np.full(6, 9)}
  model = decoder, small.parameters(decoder, given, num_frames)
  sampler = generation.Sampler(temperature=99.0)
  rest = model, (given, mask), num_frames, 1, sampler
  free = np.asarray(_generate(*rest).codes['speech'])
  some, every = (free == 0).any(axis=2), (free == 0).all(axis=2)
  every[:, 0] = some[:, 0] = False
  first = np.where(every.any(axis=1), every.argmax(axis=1), 9)
  assert (first < 9).any() and (first > some.argmax(axis=1)).any()
  found = _generate(*rest, stop=generation.Stop(0, None))
  np.testing.assert_array_equal(found.num_frames['speech'], first)
  kept = np.arange(9)[:, None] < first[:, None, None]
  np.testing.assert_array_equal(found.codes['speech'], free * kept)


def test_segments_are_guided():
  """1 is conditional and 0 unconditional, exactly; 9 is neither."""
  decoder = _decoder(backbone=small.stack(adaptive='film'))
  rest = (decoder, _params(decoder, _film())), _given({'text': 3, 'speech': 0})

  def run(context, **options):
    return _generate(*rest, context=context, **options).codes['speech']

  one, other = run(_film()), run(_film(0))
  null = {'film': np.zeros((1, 3), np.float32)}
  found = [run(_film(), null_context=null, guidance=s) for s in (1.0, 0.0, 9.0)]
  np.testing.assert_array_equal(found[0], one)
  np.testing.assert_array_equal(found[1], other)
  assert (one != other).any()
  assert (found[2] != one).any() and (found[2] != other).any()


def test_a_cache_of_segments_is_a_window():
  decoder = _decoder()
  params = _params(decoder)
  given = _given({'text': 3, 'speech': 0})
  whole = _generate((decoder, params), given).codes['speech']
  short = _generate((decoder, params), given, cache_length=2).codes['speech']
  window = _decoder(backbone=small.stack(mixer={'window': 2}))
  expected = _generate((window, params), given).codes['speech']
  np.testing.assert_array_equal(short, expected)
  assert (np.asarray(short) != np.asarray(whole)).any()


def test_codes_of_observed_segments_count_as_recent():
  """Of the same slot: none of the last three comes again."""

  class Forbidding(generation.Sampler):

    def _penalise(self, logits, recent):
      seen = (recent[..., None] == np.arange(V)).any(axis=-2)
      return jax.numpy.where(seen, -np.inf, logits)

  segments = (
      sequence_lib.Segment('text', (0,), role='observe'),
      sequence_lib.Segment('speech', (0,)),
  )
  decoder = segmented.Segmented(
      vocabularies=(V,),
      sequence=sequence_lib.Sequence(segments),
      backbone=small.stack(),
  )
  given, mask = _given({'text': 3, 'speech': 0})
  given['speech'], mask['speech'] = (
      given['speech'][..., :1],
      mask['speech'][..., :1],
  )
  model = decoder, small.parameters(decoder, given, LENGTHS)
  sampler = Forbidding(temperature=9.0, repetition_window=3)
  found = _generate(model, (given, mask), sampler=sampler).codes
  for row in range(4):
    text = given['text'][row, : LENGTHS['text'][row], 0]
    speech = found['speech'][row, : LENGTHS['speech'][row], 0]
    codes = [*text, *np.asarray(speech)]
    for at in range(len(text), len(codes)):
      assert codes[at] not in codes[max(at - 3, 0) : at]
