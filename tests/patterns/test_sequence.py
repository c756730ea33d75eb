"""Segments: an exact bijection, packed row by row."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib

TEXT = sequence_lib.Segment('text', (0,))
SPEECH = sequence_lib.Segment('speech', (1, 2), interleaving.Delay())
FULL = {'text': 4, 'speech': 5}
LENGTHS = {
    'text': np.array([4, 1, 0, 3, 0]),
    'speech': np.array([5, 3, 2, 0, 0]),
}
SEQUENCES = {
    'text, then speech': (TEXT, SPEECH),
    'speech, then text': (
        sequence_lib.Segment('speech', (1, 2), coarse_first.CoarseFirst()),
        TEXT,
    ),
    'in turns': (
        sequence_lib.Segment('text', (0,), chunk=1),
        sequence_lib.Segment('speech', (2, 1), interleaving.Delay(), chunk=2),
    ),
}


def _codes(segment, frames):
  """Codes that name their segment, frame and column: all different."""
  start = {'text': 1, 'speech': 101}[segment.label]
  shape = (len(LENGTHS['text']), frames, len(segment.slots))
  return np.int32(start) + np.broadcast_to(
      np.arange(np.prod(shape[1:]), dtype=np.int32).reshape(1, *shape[1:]),
      shape,
  )


@pytest.fixture(name='case', params=SEQUENCES)
def _case(request):
  sequences = sequence_lib.Sequence(SEQUENCES[request.param])
  codes = {s.label: _codes(s, FULL[s.label]) for s in sequences.segments}
  return sequences, sequences.layout(FULL), codes


def test_every_code_has_one_place_and_comes_back(case):
  sequences, layout, codes = case
  steps = np.asarray(layout.to_steps(codes))
  assert steps.shape[2] == sequences.group == layout.slot.shape[1]
  expected = np.concatenate([c[0].ravel() for c in codes.values()])
  np.testing.assert_array_equal(
      np.sort(steps[0][steps[0] > 0]), np.sort(expected)
  )
  for segment in sequences.segments:
    own = steps[:, layout.rows[segment.label], : segment.group]
    back = layout.layouts[segment.label].to_frames(own)
    np.testing.assert_array_equal(back, codes[segment.label])
    # Slots are the decoder's.
    for k, slot in enumerate(segment.slots):
      at = np.isin(steps[0], codes[segment.label][0, :, k])
      assert (layout.slot[at] == slot).all()
      assert any(slot in place for place in sequences.groups)


def test_places_hold_their_own_slots_even_where_there_is_nothing(case):
  sequences, layout, _ = case
  for g, slots in enumerate(sequences.groups):
    assert set(layout.slot[:, g]) <= set(slots)


def test_rows_are_packed_as_if_they_were_alone(case):
  sequences, layout, codes = case
  packing = layout.packing(LENGTHS)
  steps = np.asarray(packing.pack(layout.to_steps(codes)))
  exists = np.asarray(packing.pack(layout.scored(LENGTHS)))
  mask = np.asarray(packing.mask)
  position = jnp.broadcast_to(jnp.arange(len(layout.slot)), mask.shape)
  cells = layout.cells(position, LENGTHS)
  for row in range(len(mask)):
    num_frames = {name: int(n[row]) for name, n in LENGTHS.items()}
    alone = sequences.layout(num_frames)
    own = alone.to_steps(
        {name: c[:1, : num_frames[name]] for name, c in codes.items()}
    )[0]
    count = len(own)
    np.testing.assert_array_equal(mask[row], np.arange(mask.shape[1]) < count)
    np.testing.assert_array_equal(np.where(exists, steps, 0)[row, :count], own)
    assert exists[row].sum() == (np.asarray(own) > 0).sum()
    np.testing.assert_array_equal(cells.exists[row], exists[row] * 1 > 0)
    np.testing.assert_array_equal(cells.segment[row, :count], alone.segment)
    inside = np.asarray(own) > 0
    for found, wanted in ((cells.slot, alone.slot), (cells.frame, alone.frame)):
      np.testing.assert_array_equal(found[row, :count][inside], wanted[inside])
  past = layout.cells(position + len(layout.slot), LENGTHS)
  assert not np.asarray(past.exists).any()


def test_segments_follow_each_other_or_take_turns():
  layout = sequence_lib.Sequence((TEXT, SPEECH)).layout(
      {'text': 2, 'speech': 2}
  )
  np.testing.assert_array_equal(layout.segment, [0, 0, 1, 1, 1])
  np.testing.assert_array_equal(
      layout.frame, [[0, -1], [1, -1], [0, -1], [1, 0], [2, 1]]
  )
  turns = sequence_lib.Sequence(
      (
          sequence_lib.Segment('prompt', (3,), role='observe'),
          sequence_lib.Segment('text', (0,), chunk=1),
          sequence_lib.Segment('speech', (1, 2), chunk=2),
          sequence_lib.Segment('rest', (4,)),
      )
  )
  layout = turns.layout({'prompt': 2, 'text': 3, 'speech': 3, 'rest': 1})
  np.testing.assert_array_equal(layout.segment, [0, 0, 1, 2, 2, 1, 2, 1, 3])
  assert turns.groups == ((0, 1, 3, 4), (2,))


def test_names_must_be_the_segments():
  with pytest.raises(ValueError, match="segments .*but num_frames of .'text'"):
    sequence_lib.Sequence((TEXT, SPEECH)).layout({'text': 2})
  with pytest.raises(ValueError, match='but num_frames of'):
    sequence_lib.Sequence((TEXT, TEXT)).layout({'text': 2})


def test_it_can_be_configured():
  sequence = sequence_lib.Sequence(
      segments=(
          sequence_lib.Segment('text', (0,), role='observe'),
          sequence_lib.Segment('speech', (1, 2), interleaving.Delay((0, 1))),
      )
  )
  text = config.to_json(sequence)
  assert '"delay"' in text
  assert config.build(sequence_lib.Sequence, json.loads(text)) == sequence


def test_observed_segments_that_come_first_lead():
  def leading(*roles, chunk=None):
    segments = tuple(
        sequence_lib.Segment(label, (k,), role=role, chunk=chunk)
        for k, (label, role) in enumerate(zip('abc', roles, strict=False))
    )
    layout = sequence_lib.Sequence(segments).layout(
        {s.label: 3 + k for k, s in enumerate(segments)}
    )
    return layout.leading

  assert leading('predict', 'observe') == 0
  assert leading('observe', 'predict', 'observe') == 3
  assert leading('observe', 'observe', 'predict') == 3 + 4
  assert leading('observe', 'observe') == 3 + 4
  assert leading('observe', 'predict', chunk=2) == 2
