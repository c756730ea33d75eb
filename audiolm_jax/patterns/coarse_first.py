"""Coarse-first: what frames are about before how they sound."""

import dataclasses

import numpy as np

from audiolm_jax import config
from audiolm_jax.patterns import base as patterns_base


@dataclasses.dataclass(frozen=True)
class CoarseFirst(patterns_base.Pattern):
  """The first slots of a block of frames, then the other slots of that block.

  MusicGen's "coarse first" and, over whole sequences, the order in which the
  stages of AudioLM (2209.03143) generate. With a block, a stream lags by as
  many frames; a last block that is not full leaves steps that hold nothing.

  Attributes:
    coarse: how many slots come first.
    block: frames that go together; None: all of a sequence, whose length must
      then be known before it starts (not streamable).
    parallel: whether a frame's coarse slots stand in one step, and its fine
      slots in one; else each slot has a step of its own.
  """

  coarse: config.Positive = 1
  block: config.Positive | None = None
  parallel: bool = False

  @property
  def streamable(self):
    return self.block is not None

  def _fine(self, slots):
    if self.coarse >= slots:
      raise ValueError(f'coarse = {self.coarse} of {slots} slots: none is fine')
    return slots - self.coarse

  def _steps(self, slots):
    """Steps of a frame, coarse and fine."""
    fine = self._fine(slots)
    return (1, 1) if self.parallel else (self.coarse, fine)

  def group(self, slots):
    return max(self.coarse, self._fine(slots)) if self.parallel else 1

  def steps(self, frames, slots):
    if not frames:
      return 0
    coarse, fine = self._steps(slots)
    block = self.block or frames
    whole, rest = divmod(frames, block)
    last = block * coarse + rest * fine if rest else 0
    return whole * block * (coarse + fine) + last

  def cells(self, step, slots, frames=None):
    block = frames if self.block is None else self.block
    if block is None:
      raise ValueError(f'{self} needs the length of its sequence')
    coarse, fine = self._steps(slots)
    # Arithmetic serves numpy and JAX alike. An empty sequence has no steps, so
    # any block will do for it.
    block = block + (block == 0)
    number = step // (block * (coarse + fine))
    within = step - number * block * (coarse + fine)
    late = (within >= block * coarse) * 1
    within = within - late * block * coarse
    each = coarse + late * (fine - coarse)
    frame = (number * block + within // each)[..., None]
    first = (late * self.coarse)[..., None]
    if not self.parallel:
      return frame, first + (within % each)[..., None]
    place = np.arange(self.group(slots))
    count = self.coarse + late * (self._fine(slots) - self.coarse)
    exists = (place < count[..., None]) * 1
    # Where there is none: frame -1, and the slot that the position holds at other
    # steps.
    slot = place + exists * first + (1 - exists) * (self.coarse - first)
    return exists * (frame + 1) - 1, slot
