"""Patterns over one stream of frames: parallel, delay, flatten.

As MusicGen defines them (2306.05284, section 2.2 and figure 1).
"""

import dataclasses
from typing import Annotated

import numpy as np

from audiolm_jax import config
from audiolm_jax.patterns import base


@dataclasses.dataclass(frozen=True)
class Parallel(base.Pattern):
  """All slots of a frame in one step, independent given the past."""

  def group(self, slots):
    return slots

  def steps(self, frames, slots):
    return frames

  def cells(self, step, slots):
    slot = np.arange(slots)
    return step[..., None] + 0 * slot, slot + 0 * step[..., None]


@dataclasses.dataclass(frozen=True)
class Delay(base.Pattern):
  """All slots in one step, slot k of frame f in step f + delays[k].

  Attributes:
    delays: one for each slot, the smallest 0; None delays each slot by one
      frame more than the one before.
  """

  delays: Annotated[tuple[int, ...], config.Range(min=0)] | None = None

  def _delays(self, slots):
    delays = self.delays
    if delays is None:
      return np.arange(slots)
    if len(delays) != slots or min(delays) != 0:
      raise ValueError(
          f'delays = {delays}: expected {slots} delays, the smallest 0.'
      )
    return np.array(delays)

  def group(self, slots):
    return len(self._delays(slots))

  def steps(self, frames, slots):
    return frames + int(self._delays(slots).max()) if frames else 0

  def cells(self, step, slots):
    delays = self._delays(slots)
    slot = np.arange(slots)
    return step[..., None] - delays, slot + 0 * step[..., None]


@dataclasses.dataclass(frozen=True)
class Flatten(base.Pattern):
  """One slot a step, all slots of a frame one after the other."""

  def group(self, slots):
    return 1

  def steps(self, frames, slots):
    return frames * slots

  def cells(self, step, slots):
    return step[..., None] // slots, step[..., None] % slots
