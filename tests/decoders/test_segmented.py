"""Segments are one distribution: over all that is predicted of a sequence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.heads import depth
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small

V = 3
FRAMES = {'text': 2, 'speech': 2}
# All codes of two text frames of slot 0 and two speech frames of slots 1, 2.
ALL = np.array(list(itertools.product(range(V), repeat=6)), np.int32)
CODES = {'text': ALL[:, :2, None], 'speech': ALL[:, 2:].reshape(-1, 2, 2)}
ROWS = len(ALL)
FULL = {name: np.full(ROWS, n, np.int32) for name, n in FRAMES.items()}
RAGGED = {
    'text': np.resize([2, 1, 0, 2, 0, 1], ROWS).astype(np.int32),
    'speech': np.resize([2, 2, 1, 0, 0, 1], ROWS).astype(np.int32),
}


def segment(label, slots, pattern=None, **options):
  pattern = pattern or interleaving.Parallel()
  return sequence_lib.Segment(label, slots, pattern, **options)


SEQUENCES = {
    'text, then speech': (
        segment('text', (0,)),
        segment('speech', (1, 2), interleaving.Delay()),
    ),
    'in turns': (
        segment('speech', (1, 2), chunk=1),
        segment('text', (0,), chunk=1),
    ),
    'coarse first': (
        segment('text', (0,)),
        segment('speech', (2, 1), coarse_first.CoarseFirst()),
    ),
}
PAIRS = [
    *itertools.product(SEQUENCES, ('independent', 'depth')),
    ('text, then speech', 'depth of each place'),
]


def make(name, head='independent', observed=()):
  segments = [
      sequence_lib.Segment(
          s.label,
          s.slots,
          s.pattern,
          'observe' if s.label in observed else 'predict',
          s.chunk,
      )
      for s in SEQUENCES[name]
  ]
  return segmented.Segmented(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence(tuple(segments)),
      head=small.HEADS[head],
      backbone=small.stack(),
  )


def init(decoder):
  one = {name: c[:1] for name, c in CODES.items()}
  return small.parameters(decoder, one, {k: n[:1] for k, n in FULL.items()})


@pytest.fixture(scope='module', params=PAIRS, ids=', '.join)
def model(request):
  decoder = make(*request.param)
  return decoder, init(decoder), small.scorer(decoder)


def _sum(scores):
  return sum(
      np.asarray(s.log_prob, np.float64).sum(axis=(1, 2))
      for s in scores.values()
  )


def test_probabilities_of_all_sequences_sum_to_one(model):
  _, params, score = model
  scores = score(params, CODES, FULL)
  prob = np.exp(_sum(scores))
  assert prob.sum() == pytest.approx(1, abs=1e-5)
  assert prob.std() > 1e-4
  fewer = {'text': FULL['text'] - 1, 'speech': FULL['speech']}
  prob = np.exp(_sum(score(params, CODES, fewer)))
  assert prob.sum() == pytest.approx(3, abs=1e-4)
  # A uniform model: all codes of a segment are scored, with log2 V bits each.
  scores = score(jax.tree.map(jnp.zeros_like, params), CODES, FULL)
  for name, found in scores.items():
    np.testing.assert_allclose(found.log_prob, -np.log(V), rtol=1e-6)
    assert found.log_prob.shape == CODES[name].shape


def stepwise(decoder):
  """Compiled (params, codes, num_frames) -> {label: log_prob}, step by step."""
  sequence = decoder.sequence
  layout = sequence.layout(FRAMES)
  count = len(layout.segment)

  @small.quick_jit
  def run(params, codes, num_frames):
    rows = jnp.arange(ROWS)
    table = layout.packing(num_frames).pack(layout.to_steps(codes))

    def step(carry, n):
      state, *before = carry
      cells = layout.cells(jnp.full((ROWS, 1), n), num_frames)
      h, state = decoder.apply(
          {'params': params}, state, *before, cells.segment, method='extend'
      )
      slot, exists = cells.slot[:, 0], cells.exists[:, 0]
      own = jnp.where(exists, table[:, n], n % V)
      own, log_prob = decoder.apply(
          {'params': params},
          h,
          slot,
          exists,
          own,
          jnp.ones_like(exists),
          small.refuse,
          jax.random.key(0),
          method='sample',
      )
      carry = state, own[:, None], cells.slot, cells.exists
      return carry, (cells, jnp.where(exists, log_prob, 0))

    cells = layout.cells(jnp.zeros((ROWS, 1), int), num_frames)
    start = (
        decoder.initial_state(ROWS, count),
        jnp.zeros_like(cells.slot),
        cells.slot,
        jnp.zeros_like(cells.exists),
    )
    _, (cells, log_prob) = jax.lax.scan(step, start, jnp.arange(count))
    found = {}
    for i, segment in enumerate(sequence.segments):
      total = jnp.zeros(codes[segment.label].shape, jnp.float32)
      for k, slot in enumerate(segment.slots):
        here = cells.exists & (cells.slot == slot)
        here = here[:, :, 0] & (cells.segment == i)
        frame = jnp.where(here, cells.frame[:, :, 0], 0)
        total = total.at[rows[:, None], frame, k].add(
            jnp.where(here, log_prob, 0)
        )
      found[segment.label] = total
    return found

  return run


def test_stepwise_log_probs_equal_teacher_forced_ones(model):
  decoder, params, score = model
  expected = score(params, CODES, RAGGED)
  found = stepwise(decoder)(params, CODES, RAGGED)
  for name in CODES:
    np.testing.assert_allclose(
        found[name], expected[name].log_prob, rtol=1e-5, atol=1e-5
    )
    valid = np.arange(FRAMES[name])[:, None] < RAGGED[name][:, None, None]
    valid = np.broadcast_to(valid, CODES[name].shape)
    np.testing.assert_array_equal(expected[name].mask, valid)
  other = {
      name: np.where(np.asarray(expected[name].mask), c, -(10**6))
      for name, c in CODES.items()
  }
  again = score(params, other, RAGGED)
  for name in CODES:
    np.testing.assert_array_equal(again[name].log_prob, expected[name].log_prob)


def test_code_logits_are_what_scores_are_of(model):
  decoder, params, score = model
  logits = small.code_logits(decoder)(params, CODES, RAGGED)
  scores = score(params, CODES, RAGGED)
  assert set(logits) == set(scores)
  for name, wanted in scores.items():
    found = small.picked(logits[name], CODES[name])
    np.testing.assert_allclose(
        np.where(wanted.mask, found, 0), wanted.log_prob, rtol=1e-5, atol=1e-5
    )


def test_stages_give_logits_of_the_slots_that_they_predict():
  observed = segment('coarse', (0, 1), role='observe')
  decoder = segmented.Staged(
      vocabularies=(3, 4, 5),
      sequence=sequence_lib.Sequence((observed, segment('fine', (2,)))),
      head=small.HEADS['independent'],
      backbone=small.stack(),
  )
  rng = np.random.default_rng(0)
  codes = rng.integers(0, (3, 4, 5), (2, 4, 3)).astype(np.int32)
  num_frames = np.array([4, 2])
  params = small.parameters(decoder, codes, num_frames)
  logits = np.asarray(small.code_logits(decoder)(params, codes, num_frames))
  assert logits.shape == (2, 4, 3, 5) and np.isneginf(logits[..., :2, :]).all()
  scores = small.scorer(decoder)(params, codes, num_frames)
  found = small.picked(logits[..., 2, :], codes[..., 2])
  valid = np.asarray(scores.mask[..., 2])
  assert valid.sum() == 6
  np.testing.assert_allclose(
      found[valid], scores.log_prob[..., 2][valid], rtol=1e-5, atol=1e-5
  )


ONE = {
    'delay': interleaving.Delay(),
    'coarse first': coarse_first.CoarseFirst(),  # It must know the end.
}


@pytest.mark.parametrize('pattern', ONE)
def test_one_segment_is_a_decoder_of_frames(pattern):
  """No weight, no packing, the same numbers to the bit, and its own names."""
  rest = {'head': small.HEADS['depth'], 'backbone': small.stack()}
  sizes = (V,) * 2
  frames = decoder_lib.Decoder(sizes, pattern=ONE[pattern], **rest)
  (single,) = frames.sequence.segments
  assert single == segment('frames', (0, 1), ONE[pattern])
  sequence = sequence_lib.Sequence((segment('speech', (0, 1), ONE[pattern]),))
  stage = segmented.Staged(vocabularies=sizes, sequence=sequence, **rest)
  segments = segmented.Segmented(vocabularies=sizes, sequence=sequence, **rest)
  layout = sequence.layout({'speech': 2})
  packing = layout.packing({'speech': RAGGED['speech']})
  assert (packing.order is None) == (pattern == 'delay')
  codes, num_frames = CODES['speech'], RAGGED['speech']
  params = small.parameters(frames, codes[:1], num_frames[:1])
  assert set(params) == {'backbone', 'embedding', 'head'}
  wanted = small.scorer(frames)(params, codes, num_frames)
  found = small.scorer(stage)(params, codes, num_frames)
  by_label = {'speech': codes}, {'speech': num_frames}
  other = small.scorer(segments)(params, *by_label)['speech']
  for same in (found, other):
    jax.tree.map(np.testing.assert_array_equal, same, wanted)
  assert stage.streams == frames.streams
  assert frames.streams['frames'].metric == 'bits_per_frame'
  assert segments.streams['speech'].metric == 'speech/bits_per_frame'
  batches = [d.example_batch(2, {'frames': 3}) for d in (frames, stage)]
  assert [set(b) for b in batches] == [{'codes', 'num_frames'}] * 2


def test_what_the_head_leaves_out_is_not_predicted():
  """Of the positions of a step, the first; of segments, those not observed."""
  segments = (
      segment('text', (0,), role='observe'),
      segment('speech', (2, 1)),
  )
  decoder = segmented.Segmented(
      vocabularies=(V,) * 3,
      sequence=sequence_lib.Sequence(segments),
      head=depth.Depth(small.stack(4), predicted=1),
      backbone=small.stack(),
  )
  assert decoder.predicted == (2,)
  assert decoder.streams['speech'].slots == (0,)
  assert decoder.streams['text'].slots == ()
  scores = small.scorer(decoder)(init(decoder), CODES, FULL)['speech']
  assert np.asarray(scores.mask).any(axis=(0, 1)).tolist() == [True, False]


def test_a_code_to_begin_with_needs_a_single_segment():
  observed = segment('text', (0,), role='observe')
  with pytest.raises(config.ConfigError, match='leave begin at None'):
    segmented.Segmented(
        vocabularies=(V,) * 2,
        sequence=sequence_lib.Sequence((observed, segment('speech', (1,)))),
        start=starts.Given((0, 0)),
    )


def test_observed_segments_count_but_are_not_scored():
  plain, observing = make('in turns'), make('in turns', observed=('speech',))
  params = init(plain)
  wanted = small.scorer(plain)(params, CODES, FULL)
  found = small.score(observing)(params, CODES, FULL)
  assert list(found.streams) == ['text']
  np.testing.assert_allclose(
      found['text'].log_prob, wanted['text'].log_prob, rtol=1e-6
  )
  np.testing.assert_array_equal(found.steps, 4)
  # Speech comes first here: text depends on it.
  first = CODES['speech'][:, 0, 0]
  means = [
      np.asarray(wanted['text'].log_prob)[first == c].mean() for c in range(V)
  ]
  assert np.std(means) > 1e-3


def test_it_can_be_configured():
  settings = {
      'kind': 'segments',
      'vocabularies': (V,) * 3,
      'sequence': {'segments': ({'label': 'text', 'slots': (0,)},)},
  }
  decoder = config.build_kind(decoders.LM_KINDS, settings)
  assert decoder.sequence.segments == (segment('text', (0,)),)
  assert decoder.group == 1
