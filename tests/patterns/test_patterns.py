"""Every pattern is an exact, streamable bijection."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import patterns
from audiolm_jax.patterns import interleaving

PATTERNS = [
    interleaving.Parallel(),
    interleaving.Delay(),
    interleaving.Delay((2, 0, 5)),
    interleaving.Delay((0, 1, 1)),
    interleaving.Flatten(),
]


@pytest.mark.parametrize('pattern', PATTERNS, ids=str)
@pytest.mark.parametrize('frames', [0, 1, 2, 7])
def test_every_slot_has_one_place_and_comes_back(pattern, frames):
  layout = pattern.layout(frames, 3)
  steps, group = layout.frame.shape
  assert (steps, group) == (pattern.steps(frames, 3), pattern.group(3))
  codes = 1 + np.arange(6 * frames, dtype=np.int32).reshape(2, frames, 3)
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


def test_delay_is_drawn_as_in_the_paper():
  layout = interleaving.Delay().layout(3, 2)
  np.testing.assert_array_equal(layout.frame, [[0, -1], [1, 0], [2, 1], [3, 2]])
  layout = interleaving.Flatten().layout(2, 2)
  np.testing.assert_array_equal(layout.frame[:, 0], [0, 0, 1, 1])
  np.testing.assert_array_equal(layout.slot[:, 0], [0, 1, 0, 1])


@pytest.mark.parametrize('pattern', PATTERNS, ids=str)
def test_scored_and_active_steps_of_shorter_rows(pattern):
  layout = pattern.layout(6, 3)
  lengths = np.array([6, 4, 1, 0])
  scored = np.asarray(layout.scored(lengths))
  np.testing.assert_array_equal(scored.sum(axis=(1, 2)), 3 * lengths)
  active = np.asarray(layout.active(lengths))
  np.testing.assert_array_equal(
      active.sum(axis=1), [pattern.steps(n, 3) for n in lengths]
  )
  for row, length in enumerate(lengths):
    assert active[row, : pattern.steps(length, 3)].all()


@pytest.mark.parametrize('pattern', PATTERNS, ids=str)
def test_longer_sequences_begin_like_shorter_ones(pattern):
  short, long = pattern.layout(4, 3), pattern.layout(9, 3)
  steps = short.frame.shape[0]
  exists = (short.frame >= 0) & (short.frame < 4)
  np.testing.assert_array_equal(short.slot, long.slot[:steps])
  np.testing.assert_array_equal(
      np.where(exists, short.frame, -1),
      np.where(exists, long.frame[:steps], -1),
  )


@pytest.mark.parametrize('pattern', PATTERNS, ids=str)
def test_given_steps_hold_given_frames_only(pattern):
  layout = pattern.layout(7, 3)
  for frames in range(8):
    count = layout.given_steps(frames)
    later = (layout.frame >= frames) & (layout.frame < 7)
    assert not later[:count].any()
    assert count == layout.frame.shape[0] or later[count].any()


def test_delays_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='expected 3 delays'):
    interleaving.Delay((0, 1)).layout(4, 3)
  with pytest.raises(ValueError, match='the smallest 0'):
    interleaving.Delay((1, 2)).layout(4, 2)
  with pytest.raises(config.ConfigError, match='delays'):
    config.kind(patterns.PATTERNS, 'delay', delays=(0, -1))
