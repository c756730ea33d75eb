"""Every pattern is an exact bijection, streamable unless it says otherwise."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import patterns
from audiolm_jax.patterns import base as patterns_base
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving

K = 4
PATTERNS = [
    interleaving.Parallel(),
    interleaving.Delay(),
    interleaving.Delay((2, 0, 5, 2)),
    # A text slot, then a semantic one and two of acoustics (Moshi).
    interleaving.Delay((0, 0, 1, 1)),
    interleaving.Stereo(),
    interleaving.Stereo((0, 2), (0, 1, 0, 1)),
    interleaving.Flatten(),
    coarse_first.CoarseFirst(),
    coarse_first.CoarseFirst(3, parallel=True),
    coarse_first.CoarseFirst(2, block=1),
    coarse_first.CoarseFirst(1, block=3),
    coarse_first.CoarseFirst(1, block=3, parallel=True),
]
every_pattern = pytest.mark.parametrize('pattern', PATTERNS, ids=str)


def test_every_pattern_is_tested_here():
  assert {type(p) for p in PATTERNS} == set(patterns.PATTERNS.values())


@every_pattern
@pytest.mark.parametrize('frames', [0, 1, 2, 7])
def test_every_slot_has_one_place_and_comes_back(pattern, frames):
  layout = pattern.layout(frames, K)
  steps, group = layout.frame.shape
  assert (steps, group) == (pattern.steps(frames, K), pattern.group(K))
  codes = 1 + np.arange(2 * K * frames, dtype=np.int32).reshape(2, frames, K)
  moved = np.asarray(layout.to_steps(codes))
  assert moved.shape == (2, steps, group)
  np.testing.assert_array_equal(
      np.sort(moved[moved > 0]), np.sort(codes.ravel())
  )
  np.testing.assert_array_equal(layout.to_frames(moved), codes)
  # And by hand, place by place.
  for n in range(steps):
    for g in range(group):
      frame, slot = layout.frame[n, g], layout.slot[n, g]
      inside = 0 <= frame < frames
      assert moved[1, n, g] == (codes[1, frame, slot] if inside else 0)


@every_pattern
def test_places_say_which_slots_they_hold(pattern):
  layout, places = pattern.layout(7, K), pattern.groups(K)
  assert len(places) == pattern.group(K)
  for g, slots in enumerate(places):
    exists = (layout.frame[:, g] >= 0) & (layout.frame[:, g] < 7)
    assert set(layout.slot[exists, g]) == set(slots)
    # What fills a place is one of its own slots, too.
    assert set(layout.slot[:, g]) <= set(slots)


@every_pattern
def test_cells_are_the_same_for_jax_and_for_a_length_of_each_row(pattern):
  step = np.arange(20)
  for frames in ([7, 7], [2, 5]):
    wanted = [pattern.cells(step, K, n) for n in frames]
    found = pattern.cells(
        jnp.broadcast_to(step, (2, 20)), K, jnp.array(frames)[:, None]
    )
    for i in (0, 1):
      np.testing.assert_array_equal(found[i], [w[i] for w in wanted])


def test_they_are_drawn_as_in_the_papers():
  layout = interleaving.Delay().layout(3, 2)
  np.testing.assert_array_equal(layout.frame, [[0, -1], [1, 0], [2, 1], [3, 2]])
  layout = interleaving.Flatten().layout(2, 2)
  np.testing.assert_array_equal(layout.frame[:, 0], [0, 0, 1, 1])
  np.testing.assert_array_equal(layout.slot[:, 0], [0, 1, 0, 1])
  # Slots 1L 2L 1R 2R; places 1L 1R 2L 2R.
  layout = interleaving.Stereo().layout(2, 4)
  np.testing.assert_array_equal(layout.slot[0], [0, 2, 1, 3])
  np.testing.assert_array_equal(
      layout.frame, [[0, 0, -1, -1], [1, 1, 0, 0], [2, 2, 1, 1]]
  )
  # A tokenizer that has them in this order already.
  stereo = interleaving.Stereo(channels=(0, 1, 0, 1))
  np.testing.assert_array_equal(stereo.layout(2, 4).slot[0], [0, 1, 2, 3])
  moshi = (0, *2 * (0, *7 * (1,)))
  layout = interleaving.Delay(moshi).layout(2, 17)
  assert layout.frame.shape == (3, 17)
  np.testing.assert_array_equal(layout.frame[1], [1, 1, *7 * [0], 1, *7 * [0]])
  layout = coarse_first.CoarseFirst().layout(3, 2)
  np.testing.assert_array_equal(layout.frame[:, 0], [0, 1, 2, 0, 1, 2])
  np.testing.assert_array_equal(layout.slot[:, 0], [0, 0, 0, 1, 1, 1])
  layout = coarse_first.CoarseFirst(block=2).layout(3, 2)
  np.testing.assert_array_equal(layout.frame[:, 0], [0, 1, 0, 1, 2, 3, 2])
  layout = coarse_first.CoarseFirst(parallel=True).layout(2, 3)
  np.testing.assert_array_equal(
      layout.frame, [[0, -1], [1, -1], [0, 0], [1, 1]]
  )
  np.testing.assert_array_equal(layout.slot[2], [1, 2])


@every_pattern
def test_scored_and_active_steps_of_shorter_rows(pattern):
  layout = pattern.layout(6, K)
  num_frames = np.array([6, 4, 1, 0])
  scored = np.asarray(layout.scored(num_frames))
  np.testing.assert_array_equal(scored.sum(axis=(1, 2)), K * num_frames)
  active = np.asarray(layout.active(num_frames))
  np.testing.assert_array_equal(
      active.sum(axis=1), [pattern.steps(n, K) for n in num_frames]
  )
  # Packed, they are the steps of a sequence of that length.
  order = np.asarray(patterns_base.Packing.of(layout.active(num_frames)).order)
  for row, length in enumerate(num_frames):
    alone = pattern.layout(length, K)
    mine = order[row, : len(alone.frame)]
    inside = (alone.frame >= 0) & (alone.frame < length)
    np.testing.assert_array_equal(scored[row, mine], inside)
    for found, wanted in (
        (layout.frame, alone.frame),
        (layout.slot, alone.slot),
    ):
      np.testing.assert_array_equal(found[mine][inside], wanted[inside])


def test_packing_keeps_the_order_and_comes_back():
  rng = np.random.default_rng(0)
  active = rng.random((5, 9)) < [[0.0], [1.0], [0.5], [0.5], [0.2]]
  x = rng.normal(size=(5, 9, 2)).astype(np.float32)
  packing = patterns_base.Packing.of(active)
  packed = np.asarray(packing.pack(x))
  for row in range(5):
    kept = x[row, active[row]]
    np.testing.assert_array_equal(packed[row, : len(kept)], kept)
    np.testing.assert_array_equal(packing.mask[row], np.arange(9) < len(kept))
  np.testing.assert_array_equal(packing.unpack(packed), x)


@every_pattern
def test_longer_sequences_begin_like_shorter_ones_if_streamable(pattern):
  same = []
  for frames in range(1, 9):
    short, long = pattern.layout(frames, K), pattern.layout(9, K)
    steps = short.frame.shape[0]
    exists = (short.frame >= 0) & (short.frame < frames)
    same.append(
        (
            np.where(exists, short.frame, -1)
            == np.where(exists, long.frame[:steps], -1)
        ).all()
        and (short.slot == long.slot[:steps])[exists].all()
    )
  # Some lengths may agree by accident.
  assert all(same) if pattern.streamable else not all(same)


@every_pattern
def test_given_steps_hold_given_frames_only(pattern):
  layout = pattern.layout(7, K)
  for frames in range(8):
    count = layout.given_steps(frames)
    later = (layout.frame >= frames) & (layout.frame < 7)
    assert not later[:count].any()
    assert count == layout.frame.shape[0] or later[count].any()


def test_fields_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='expected 3 delays'):
    interleaving.Delay((0, 1)).layout(4, 3)
  with pytest.raises(ValueError, match='the smallest 0'):
    interleaving.Delay((1, 2)).layout(4, 2)
  with pytest.raises(ValueError, match='expected 2 delays for 4'):
    interleaving.Stereo((0, 1, 2)).layout(4, 4)
  with pytest.raises(ValueError, match='as many of each channel'):
    interleaving.Stereo().layout(4, 3)
  with pytest.raises(ValueError, match='as many of each channel'):
    interleaving.Stereo(channels=(0, 1)).layout(4, 4)
  with pytest.raises(ValueError, match='none is fine'):
    coarse_first.CoarseFirst(2).layout(4, 2)
  with pytest.raises(ValueError, match='needs the length'):
    coarse_first.CoarseFirst().cells(np.arange(3), 2)
  with pytest.raises(config.ConfigError, match='delays'):
    config.build(patterns.Delay, {'delays': (0, -1)})
