"""The Pattern seam: slots in frames <-> decoder steps, as an exact bijection.

A decoder works in steps of G codes. A pattern says which (frame, slot) each of
a step's places holds, so that every pattern scores the same positions, and bits
a frame mean the same under all of them.
"""

import abc
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped
import numpy as np


class Pattern(abc.ABC):
  """An order of the slots of frames; hashable, static.

  The steps of a longer sequence begin with those of a shorter one (cells past
  its end aside): that is what makes a pattern streamable, and every pattern
  whose `cells` takes only the step is.
  """

  @abc.abstractmethod
  def group(self, slots: int) -> int:
    """G, the codes of a step.

    Raises:
      ValueError: if the pattern does not fit that many slots.
    """

  @abc.abstractmethod
  def steps(self, frames: int, slots: int) -> int:
    """N, the steps that hold `frames` frames (0 for 0)."""

  @abc.abstractmethod
  def cells(
      self, step: Int[Array, '*n'], slots: int
  ) -> tuple[Int[Array, '*n G'], Int[Array, '*n G']]:
    """The frame and slot of each place of a step, of numpy or JAX integers.

    Frames below 0, or at or past the end of a sequence, do not exist: the place
    is filled in the decoder's input and not scored.
    """

  def layout(self, frames: int, slots: int) -> 'Layout':
    """The whole table for a sequence of `frames` frames."""
    step = np.arange(self.steps(frames, slots))
    frame, slot = self.cells(step, slots)
    inverse = np.full((2, frames, slots), -1)
    exists = (frame >= 0) & (frame < frames)
    where = np.nonzero(exists)
    inverse[:, frame[exists], slot[exists]] = where
    if exists.sum() != frames * slots or (inverse < 0).any():
      raise ValueError(f'{self} is no bijection for {frames} x {slots}')
    return Layout(frame, slot, inverse[0], inverse[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """A pattern for one sequence length, as host tables.

  Attributes:
    frame: [N, G] frame of each place; outside [0, F) where there is none.
    slot: [N, G] slot of each place.
    step: [F, K] step that holds a frame's slot.
    place: [F, K] its place in that step.
  """

  frame: Int[np.ndarray, 'N G']
  slot: Int[np.ndarray, 'N G']
  step: Int[np.ndarray, 'F K']
  place: Int[np.ndarray, 'F K']

  def scored(self, lengths: Int[Array, 'B']) -> Bool[Array, 'B N G']:
    """True for places that hold a frame before the row's length."""
    return (self.frame >= 0) & (self.frame < lengths[:, None, None])

  def active(self, lengths: Int[Array, 'B']) -> Bool[Array, 'B N']:
    """True for steps up to the last scored one of each row."""
    scored = jnp.any(self.scored(lengths), axis=-1)
    return jnp.flip(jnp.cumsum(jnp.flip(scored, 1), axis=1), 1) > 0

  def to_steps(self, x: Shaped[Array, 'B F K']) -> Shaped[Array, 'B N G']:
    """Moves values from frames to steps; places without a frame hold 0."""
    frames = x.shape[1]
    exists = (self.frame >= 0) & (self.frame < frames)
    moved = x[:, np.where(exists, self.frame, 0), self.slot]
    return jnp.where(exists, moved, jnp.zeros((), x.dtype))

  def to_frames(self, x: Shaped[Array, 'B N G']) -> Shaped[Array, 'B F K']:
    """Moves values from steps to frames: the inverse of `to_steps`."""
    return x[:, self.step, self.place]

  def given_steps(self, frames: int) -> int:
    """How many leading steps hold nothing at or past frame `frames`."""
    later = (self.frame >= frames) & (self.frame < self.step.shape[0])
    rows = np.flatnonzero(later.any(axis=1))
    return int(rows[0]) if rows.size else self.frame.shape[0]
