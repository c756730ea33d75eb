"""Sequences of segments: text then speech, in turns, or stage after stage.

A segment is some slots with a length and a pattern of their own. Segments
follow each other without gaps in each row, whatever their lengths there.
"""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import patterns
from audiolm_jax.patterns import base as patterns_base
from audiolm_jax.patterns import interleaving


@dataclasses.dataclass(frozen=True)
class Segment:
  """A part of a sequence.

  Attributes:
    label: names its codes and lengths.
    slots: which of the decoder's; its codes [B, F, K] have one column for each.
      Segments of the same slots share their embeddings and classifiers.
    pattern: of its slots.
    role: whether its codes are predicted, or observed only and not scored.
    chunk: neighbouring segments with chunks take turns of so many steps, until
      each is at its end; a segment without one stands by itself.
  """

  label: str
  slots: Annotated[tuple[int, ...], config.Range(min=0)]
  pattern: Annotated[Any, config.Kind(lambda: patterns.PATTERNS)] = (
      interleaving.Parallel()
  )
  role: Literal['predict', 'observe'] = 'predict'
  chunk: config.Positive | None = None

  @property
  def group(self) -> int:
    """Codes of its steps."""
    return self.pattern.group(len(self.slots))


class Cells(NamedTuple):
  """What stands at some positions of packed rows.

  Attributes:
    segment: its number; unspecified past the end of a row, as slot and frame.
    frame: of each position, within the segment.
    slot: of each position.
    exists: False for positions, and positions, that hold nothing.
  """

  segment: Int[Array, 'B n']
  frame: Int[Array, 'B n G']
  slot: Int[Array, 'B n G']
  exists: Bool[Array, 'B n G']


@dataclasses.dataclass(frozen=True)
class Sequence:
  """Segments in their order.

  Attributes:
    segments: with different labels.
  """

  segments: tuple[Segment, ...]

  @property
  def group(self) -> int:
    """G, the most codes of a step."""
    return max(segment.group for segment in self.segments)

  @property
  def groups(self) -> tuple[tuple[int, ...], ...]:
    """For each position of a step, the slots that it may hold."""
    slots_of_groups = [set() for _ in range(self.group)]
    for segment in self.segments:
      own = segment.pattern.groups(len(segment.slots))
      for place, slots in enumerate(own):
        slots_of_groups[place] |= {segment.slots[slot] for slot in slots}
    return tuple(tuple(sorted(slots)) for slots in slots_of_groups)

  @property
  def ends_in_turns(self) -> bool:
    """Whether the last segment takes turns with the one before it."""
    before, last = self.segments[:-1], self.segments[-1]
    return bool(before and before[-1].chunk and last.chunk)

  def layout(self, frames: dict[str, int]) -> 'SequenceLayout':
    """The whole table for segments of so many frames, by label.

    Raises:
      ValueError: if labels are not the segments', or appear twice.
    """
    names = [segment.label for segment in self.segments]
    if sorted(names) != sorted(frames):
      raise ValueError(f'segments {names}, but num_frames of {sorted(frames)}')
    layouts = [
        segment.pattern.layout(frames[segment.label], len(segment.slots))
        for segment in self.segments
    ]
    keys, frame, slot, turn = [], [], [], 0
    for i, (segment, layout) in enumerate(
        zip(self.segments, layouts, strict=True)
    ):
      if i and not (segment.chunk and self.segments[i - 1].chunk):
        turn += 1
      steps = np.arange(len(layout.frame))
      rounds = steps // (segment.chunk or max(len(steps), 1))
      same = np.zeros_like(steps)
      keys.append(np.stack([steps, same + i, rounds, same + turn]))
      own = slice(None), slice(segment.group)
      shape = (len(steps), self.group)
      frame.append(np.full(shape, -1))
      frame[-1][own] = layout.frame
      slot.append(np.tile([place[0] for place in self.groups], (len(steps), 1)))
      slot[-1][own] = np.array(segment.slots)[layout.slot]
    keys = np.concatenate(keys, axis=1)
    order = np.lexsort(keys)
    owner = keys[1][order]
    return SequenceLayout(
        self.segments,
        dict(zip(names, layouts, strict=True)),
        {name: _rows(owner == i) for i, name in enumerate(names)},
        order,
        owner,
        np.concatenate(frame)[order],
        np.concatenate(slot)[order],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceLayout:
  """A sequence for one length of each segment, as host tables.

  Rows with shorter segments have some of the table's steps, packed.

  Attributes:
    segments: of the sequence.
    layouts: of each segment, in its own slots.
    rows: where in the table each segment's steps stand.
    order: [N] of each step, its place among the segments' own end to end.
    segment: [N] number of the segment of each step.
    frame: [N, G] frame within the segment of each position; -1 where a segment has
      no such place.
    slot: [N, G] the decoder's slot of each position.
  """

  segments: tuple[Segment, ...]
  layouts: dict[str, patterns_base.Layout]
  rows: dict[str, slice | Int[np.ndarray, 'n']]
  order: Int[np.ndarray, 'N']
  segment: Int[np.ndarray, 'N']
  frame: Int[np.ndarray, 'N G']
  slot: Int[np.ndarray, 'N G']

  @property
  def leading(self) -> int:
    """Steps of the observed segments that come before all others."""
    observed = np.array([s.role == 'observe' for s in self.segments])
    others = np.flatnonzero(~observed[self.segment])
    return int(others[0]) if others.size else len(self.segment)

  def scored(
      self, num_frames: dict[str, Int[Array, 'B']]
  ) -> Bool[Array, 'B N G']:
    """True for positions that hold a frame before its segment's length."""
    ends = jnp.stack([num_frames[s.label] for s in self.segments], axis=1)
    return (self.frame >= 0) & (self.frame < ends[:, self.segment, None])

  def packing(
      self, num_frames: dict[str, Int[Array, 'B']]
  ) -> patterns_base.Packing:
    """Where each row's own steps stand in the table."""
    if len(self.segments) == 1:
      (label, layout), *_ = self.layouts.items()
      if layout.streamable:
        return patterns_base.Packing.none(layout.active(num_frames[label]))
    active = jnp.concatenate(
        [
            self.layouts[s.label].active(num_frames[s.label])
            for s in self.segments
        ],
        axis=1,
    )
    return patterns_base.Packing.of(active[:, self.order])

  def to_steps(
      self, codes: dict[str, Int[Array, 'B F K']]
  ) -> Int[Array, 'B N G']:
    """Moves codes to the table's steps; positions without a frame hold 0."""
    group = self.frame.shape[1]
    steps = [
        jnp.pad(moved, ((0, 0), (0, 0), (0, group - moved.shape[2])))
        for moved in (
            self.layouts[s.label].to_steps(codes[s.label])
            for s in self.segments
        )
    ]
    return jnp.concatenate(steps, axis=1)[:, self.order]

  def cells(
      self, step: Int[Array, 'B n'], num_frames: dict[str, Int[Array, 'B']]
  ) -> Cells:
    """What stands at positions `step` of packed rows."""
    packing = self.packing(num_frames)
    most = len(self.segment) - 1
    index = at = jnp.clip(step, 0, most)
    if packing.order is not None:
      index = jnp.take_along_axis(packing.order, at, axis=1)
    frame, segment = (jnp.asarray(x)[index] for x in (self.frame, self.segment))
    ends = jnp.stack([num_frames[s.label] for s in self.segments], axis=1)
    end = jnp.take_along_axis(ends, segment, axis=1)[..., None]
    inside = (step <= most) & jnp.take_along_axis(packing.mask, at, axis=1)
    exists = inside[..., None] & (frame >= 0) & (frame < end)
    return Cells(segment, frame, jnp.asarray(self.slot)[index], exists)


def _rows(own):
  """Where True stands: a slice if that is in one piece, since it costs less."""
  rows = np.flatnonzero(own)
  first = int(rows.min(initial=len(own)))
  piece = slice(first, first + len(rows))
  return piece if own[piece].all() else rows
