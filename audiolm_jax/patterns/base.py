"""The Pattern seam: slots in frames <-> decoder steps, as an exact bijection.

A decoder works in steps of G codes. A pattern says which (frame, slot) each of
a step's positions holds, so that every pattern scores the same positions, and bits
a frame mean the same under all of them.
"""

import abc
import dataclasses

import flax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped
import numpy as np


class Pattern(abc.ABC):
  """An order of the slots of frames; hashable, static."""

  @property
  def streamable(self) -> bool:
    """Whether longer sequences begin with the steps of shorter ones.

    (Cells past the end of the shorter one aside.) Where that is False, the
    length of a row must be known from its first step on, and `cells` needs it.
    """
    return True

  @abc.abstractmethod
  def group(self, slots: int) -> int:
    """G, the codes of a step.

    Raises:
      ValueError: if the pattern does not fit that many slots.
    """

  def groups(self, slots: int) -> tuple[tuple[int, ...], ...]:
    """For each of the G positions of a step, the slots that it may hold.

    A slot has the same place in every frame.
    """
    place = self.layout(1, slots).place[0]
    return tuple(
        tuple(np.flatnonzero(place == g).tolist())
        for g in range(self.group(slots))
    )

  @abc.abstractmethod
  def steps(self, frames: int, slots: int) -> int:
    """N, the steps that hold `frames` frames (0 for 0)."""

  @abc.abstractmethod
  def cells(
      self,
      step: Int[Array, '*n'],
      slots: int,
      frames: Int[Array, '*n'] | None = None,
  ) -> tuple[Int[Array, '*n G'], Int[Array, '*n G']]:
    """The frame and slot of each position of a step, of numpy or JAX integers.

    Frames below 0, or at or past the end of a sequence, do not exist: the position
    is filled in the decoder's input and not scored. Its slot is still one of
    those that `groups` says it may hold.

    Args:
      step: from 0.
      slots: K.
      frames: length of the sequence, broadcastable to `step`; only a pattern
        that is not streamable reads it.

    Raises:
      ValueError: if the pattern is not streamable and `frames` is None.
    """

  def layout(self, frames: int, slots: int) -> 'Layout':
    """The whole table for a sequence of `frames` frames."""
    step = np.arange(self.steps(frames, slots))
    frame, slot = self.cells(step, slots, np.array(frames))
    inverse = np.full((2, frames, slots), -1)
    exists = (frame >= 0) & (frame < frames)
    where = np.nonzero(exists)
    inverse[:, frame[exists], slot[exists]] = where
    if exists.sum() != frames * slots or (inverse < 0).any():
      raise ValueError(f'{self} is no bijection for {frames} x {slots}')
    return Layout(frame, slot, inverse[0], inverse[1], self.streamable)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """A pattern for one sequence length, as host tables.

  Attributes:
    frame: [N, G] frame of each position; outside [0, F) where there is none.
    slot: [N, G] slot of each position.
    step: [F, K] step that holds a frame's slot.
    place: [F, K] its place in that step.
    streamable: of the pattern. If not, a shorter row has fewer steps between
      others, and those that it has are packed: see `Packing`.
  """

  frame: Int[np.ndarray, 'N G']
  slot: Int[np.ndarray, 'N G']
  step: Int[np.ndarray, 'F K']
  place: Int[np.ndarray, 'F K']
  streamable: bool = True

  def scored(self, num_frames: Int[Array, 'B']) -> Bool[Array, 'B N G']:
    """True for positions that hold a frame before the row's length."""
    return (self.frame >= 0) & (self.frame < num_frames[:, None, None])

  def active(self, num_frames: Int[Array, 'B']) -> Bool[Array, 'B N']:
    """True for the steps that a row of its own length would have."""
    scored = jnp.any(self.scored(num_frames), axis=-1)
    if not self.streamable:
      return scored
    return jnp.flip(jnp.cumsum(jnp.flip(scored, 1), axis=1), 1) > 0

  def to_steps(self, x: Shaped[Array, 'B F K']) -> Shaped[Array, 'B N G']:
    """Moves values from frames to steps; positions without a frame hold 0."""
    x = jnp.asarray(x)
    exists = (self.frame >= 0) & (self.frame < x.shape[1])
    moved = x[:, np.where(exists, self.frame, 0), self.slot]
    return jnp.where(exists, moved, jnp.zeros((), x.dtype))

  def to_frames(
      self, x: Shaped[Array, 'B N G *d']
  ) -> Shaped[Array, 'B F K *d']:
    """Moves values from steps to frames: the inverse of `to_steps`."""
    return x[:, self.step, self.place]

  def given_steps(self, frames: int) -> int:
    """How many leading steps hold nothing at or past frame `frames`."""
    later = (self.frame >= frames) & (self.frame < self.step.shape[0])
    rows = np.flatnonzero(later.any(axis=1))
    return int(rows[0]) if rows.size else self.frame.shape[0]


class Packing(flax.struct.PyTreeNode):
  """The steps that each row has, moved to its beginning in their order.

  Attributes:
    order: [B, N] which step of the table stands at each position of a row; None
      where all rows begin with the table's steps as they are.
    position: [B, N] the inverse: where in a row each step of the table stands.
    mask: [B, N] the positions that hold a step, a prefix of each row.
  """

  order: Int[Array, 'B N'] | None
  position: Int[Array, 'B N']
  mask: Bool[Array, 'B N']

  @classmethod
  def of(cls, active: Bool[Array, 'B N']) -> 'Packing':
    """Packs the steps where `active`; the others follow."""
    order = jnp.argsort(~active, axis=1, stable=True)
    before = jnp.cumsum(active, axis=1)
    gaps = jnp.cumsum(~active, axis=1)
    count = before[:, -1:]
    position = jnp.where(active, before, count + gaps) - 1
    return cls(order, position, jnp.arange(active.shape[1]) < count)

  @classmethod
  def none(cls, active: Bool[Array, 'B N']) -> 'Packing':
    """Leaves the steps where they are: those `active` are a prefix."""
    position = jnp.arange(active.shape[1])
    return cls(None, jnp.broadcast_to(position, active.shape), active)

  def pack(self, x: Shaped[Array, 'B N *d']) -> Shaped[Array, 'B N *d']:
    """From the table's order to the rows'."""
    return x if self.order is None else _take_steps(x, self.order)

  def unpack(self, x: Shaped[Array, 'B N *d']) -> Shaped[Array, 'B N *d']:
    """The inverse of `pack`."""
    return x if self.order is None else _take_steps(x, self.position)


def _take_steps(x, index):
  index = index.reshape(*index.shape, *[1] * (x.ndim - 2))
  return jnp.take_along_axis(x, index, axis=1)
