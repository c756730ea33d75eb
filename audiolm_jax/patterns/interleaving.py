"""Patterns over one stream of frames: parallel, delay, stereo, flatten.

As MusicGen defines them (2306.05284, sections 2.2 and 2.4, and figure 1).
"""

import dataclasses
from typing import Annotated

import numpy as np

from audiolm_jax import config
from audiolm_jax.patterns import base as patterns_base

Delays = Annotated[tuple[int, ...], config.Range(min=0)] | None


@dataclasses.dataclass(frozen=True)
class Parallel(patterns_base.Pattern):
  """All slots of a frame in one step, independent given the past."""

  def group(self, slots):
    return slots

  def steps(self, frames, slots):
    return frames

  def cells(self, step, slots, frames=None):
    slot = np.arange(slots)
    return step[..., None] + 0 * slot, slot + 0 * step[..., None]


@dataclasses.dataclass(frozen=True)
class Delay(patterns_base.Pattern):
  """All slots in one step, slot k of frame f in step f + delays[k].

  Moshi's streams (2410.00037, section 3.4.4) are the delays 0 for the text, and
  0, 1, 1, 1, 1, 1, 1, 1 for the codebooks of each of the two speakers, whose
  first is semantic: a step begins with what is said, and acoustics follow it a
  frame later.

  Attributes:
    delays: one for each slot, the smallest 0; None delays each slot by one
      frame more than the one before.
  """

  delays: Delays = None

  def _delays(self, slots):
    """The delay of each position."""
    return _checked(self.delays, slots, slots)

  def _slots(self, slots):
    """The slot of each position."""
    return np.arange(slots)

  def group(self, slots):
    return len(self._delays(slots))

  def steps(self, frames, slots):
    return frames + int(self._delays(slots).max()) if frames else 0

  def cells(self, step, slots, frames=None):
    frame = step[..., None] - self._delays(slots)
    return frame, self._slots(slots) + 0 * frame


@dataclasses.dataclass(frozen=True)
class Stereo(Delay):
  """A delay for two or more channels: codebook 1 of each, then codebook 2, ...

  MusicGen's stereo order 1L 1R 2L 2R ..., with the delays 0 0 1 1 ...

  Attributes:
    delays: one for each codebook of a channel; None: 0, 1, 2, ...
    channels: of each slot, as a tokenizer's `spec.slots` say; None: the first
      half of the slots left, the second half right.
  """

  channels: Annotated[tuple[int, ...], config.Range(min=0)] | None = None

  def _ranks(self, slots):
    """(channel of each slot, how many of its channel come before it)."""
    channels = self.channels
    if channels is None:
      channels = [2 * k // slots for k in range(slots)]
    counts = np.bincount(channels)
    if len(channels) != slots or (counts != counts[0]).any():
      raise ValueError(
          f'channels = {tuple(channels)}: expected {slots} entries, as many of'
          ' each channel.'
      )
    ranks = [channels[:k].count(c) for k, c in enumerate(channels)]
    return np.array(channels), np.array(ranks)

  def _slots(self, slots):
    channels, ranks = self._ranks(slots)
    return np.lexsort((channels, ranks))

  def _delays(self, slots):
    _, ranks = self._ranks(slots)
    delays = _checked(self.delays, int(ranks.max()) + 1, slots)
    return delays[np.sort(ranks)]


def _checked(delays, count, slots):
  if delays is None:
    return np.arange(count)
  if len(delays) != count or min(delays) != 0:
    raise ValueError(
        f'delays = {delays}: expected {count} delays for {slots} slots, the'
        ' smallest 0.'
    )
  return np.array(delays)


@dataclasses.dataclass(frozen=True)
class Flatten(patterns_base.Pattern):
  """One slot a step, all slots of a frame one after the other."""

  def group(self, slots):
    return 1

  def steps(self, frames, slots):
    return frames * slots

  def cells(self, step, slots, frames=None):
    return step[..., None] // slots, step[..., None] % slots
