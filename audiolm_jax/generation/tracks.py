"""What generates: a decoder bound to all that stays while rows go on.

What is generated lies in one array [B, F, K]: frames of slots, samples of
channels, or the frames of all segments one after the other. A track says which
cells of it each step of a row holds: (frame, slot, exists) [B, *n, G], where n
is () or one axis of steps, `exists` is False for positions without a frame, and
segments add the number [B, *n] of each step's segment, decoders with conditions
of frames the last frame of each step. And it has the decoder
take in steps and draw them.
"""

import abc
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.streaming import base as streaming_base

_static = flax.struct.field


class Track(flax.struct.PyTreeNode, abc.ABC):
  """Frames, segments or samples; compiled functions take it as an argument.

  Attributes:
    decoder: what generates; see `weights.unroll`.
    params: its parameters.
    sampler: how codes are drawn; None for samples, whose heads draw them.
    context: what the decoder sees of the conditions; of 2B rows
      (`guidance.pair`) if guided.
    guidance: see `guidance.combine`; None for predictions that are not guided.
    stop: what ends a row; codes that are given do not.
    lengths: of whole rows: [B], or by the labels of segments.
  """

  decoder: Any = _static(pytree_node=False)
  params: Any
  sampler: sampling.Sampler | None = _static(pytree_node=False, default=None)
  context: streaming_base.Context = None
  guidance: Float[Array, ''] | float | None = None
  stop: sampling.Stop | None = _static(pytree_node=False, default=None)
  lengths: Any = None

  # The first frame of the last segment, the only one that may be stopped.
  offset = 0

  @property
  def slots(self) -> int:
    """K."""
    return len(self.decoder.vocabularies)

  @property
  def group(self) -> int:
    """G, the codes of a step."""
    return self.decoder.group

  @property
  def begun(self) -> int:
    """Leading steps that are given to every row: they follow from nothing."""
    return self.decoder.start.given

  @property
  def window(self) -> int:
    """How many last codes of each slot the sampler looks at."""
    return self.sampler.repetition_window

  @property
  def guided(self) -> bool:
    """Whether there are predictions without conditions, too."""
    return self.guidance is not None

  def both(self, tree: Any) -> Any:
    """Arrays [B, ...] as the decoder takes them: twice if guided."""
    return guidance_lib.twice(tree) if self.guided else tree

  @abc.abstractmethod
  def cells(
      self, step: Int[Array, 'B *n'], frames: Int[Array, 'B']
  ) -> tuple[Array, ...]:
    """What steps hold of rows of so many frames; see the top of this file."""

  @abc.abstractmethod
  def ends(self, most: int) -> Callable[[Int[Array, 'B']], Int[Array, 'B']]:
    """Tells how many steps rows of so many frames have, up to `most` frames."""

  def begin(self, rows: int, cache_length: int, sink_tokens: int) -> Any:
    """The decoder's state before the first step, after what conditions put there."""
    state = self.decoder.initial_state(rows, cache_length, sink_tokens)
    if self.context is None or 'prefix' not in self.context:
      return state
    return self._apply('begin', state, self.context)

  def first(
      self, slots: Int[Array, 'B G'], codes: Int[Array, 'B K'] | None
  ) -> tuple[Int[Array, 'B G'], Bool[Array, 'B G']]:
    """What stands before the first step that is not given: (codes, exists)."""
    return self.decoder.start.first(slots, codes)

  def extend(
      self,
      cache: Any,
      inputs: tuple[Array, ...],
      mask: Bool[Array, 'R n'] | None,
  ) -> tuple[Float[Array, 'R D'], Any]:
    """Takes in n steps of R rows (B, or 2B if guided); see `Decoder.extend`.

    Args:
      cache: the decoder's state.
      inputs: codes, slots and exists [R, n, G] of the steps; where there are
        segments, or conditions of frames, also those [R, n] of the steps after
        each of them.
      mask: the steps that each row takes in, as a prefix; None for all.
    """
    return self._apply(
        'extend', cache, *inputs, mask=mask, context=self.context
    )

  def sample(
      self,
      h: Float[Array, 'R D'],
      step: tuple[Array, ...],
      keys: Key[Array, 'B'],
      recent: Int[Array, 'B K w'],
  ) -> tuple[Int[Array, 'R G'], Float[Array, 'R G']]:
    """A step's codes and their log-probabilities, given what `extend` gave.

    Args:
      h: what `extend` returned.
      step: slot, exists, given codes, and where they are given, [R, G] each.
      keys: of this step of each row.
      recent: the last codes of each slot.
    """

    def choose(logits, rng, slots):
      # One key a code, by its slot.
      del rng
      if self.guided:
        logits = guidance_lib.combine(logits, self.guidance)
      slots = slots[: len(keys)]
      each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys, slots)
      seen = jnp.take_along_axis(recent, slots[..., None], axis=1)
      return self.both(self.sampler(logits, each, seen))

    return self._apply('sample', h, *step, choose, jax.random.key(0))

  def until(
      self,
      frames: Int[Array, 'B'],
      step: tuple[Array, ...],
      h: Float[Array, 'R D'],
      keys: Key[Array, 'B'],
  ) -> Int[Array, 'B']:
    """Where rows end, now that a step is drawn.

    Args:
      frames: where they ended before.
      step: frame, slot, exists, codes, and where they are given, [B, G] each.
      h: what `extend` returned.
      keys: of this step of each row.
    """
    del h, keys
    stop, (frame, slot, exists, codes, given_mask) = self.stop, step
    if stop is None:
      return frames
    ends = (codes[..., None] == jnp.array(stop.codes)).any(axis=-1)
    hit = ends & ~given_mask
    if stop.slot is None:
      hit = (hit | ~exists).all(axis=1, keepdims=True)
    else:
      hit &= slot == stop.slot
    hit &= exists & (frame >= self.offset)
    return jnp.where(hit, frame, frames[:, None]).min(axis=1)

  def shown(
      self, codes: Shaped[Array, 'B *n G'], keys: Key[Array, 'B *n']
  ) -> Shaped[Array, 'B *n G']:
    """Codes of steps as the decoder is to see them: themselves.

    Args:
      codes: of the steps.
      keys: of the steps.
    """
    del keys
    return codes

  def _apply(self, method, *args, **kwargs):
    variables = {'params': self.params}
    return self.decoder.apply(variables, *args, **kwargs, method=method)


class Frames(Track):
  """Frames of a `decoders.Decoder`, in the order of its pattern."""

  def count(self, frames: int) -> int:
    """Steps of the longest rows."""
    return self.decoder.pattern.steps(frames, self.slots)

  def cells(self, step, frames):
    if step.ndim > frames.ndim:
      frames = frames[:, None]
    frame, slot = self.decoder.pattern.cells(step, self.slots, frames)
    exists = (frame >= 0) & (frame < frames[..., None])
    if not self.decoder.aligned:
      return frame, slot, exists
    last = jnp.broadcast_to(frame.max(axis=-1), step.shape)
    return frame, slot, exists, last

  def extend(self, cache, inputs, mask):
    if not self.decoder.aligned:
      return super().extend(cache, inputs, mask)
    *inputs, frames = inputs
    return self._apply(
        'extend',
        cache,
        *inputs,
        mask=mask,
        context=self.context,
        frames=frames,
    )

  def ends(self, most):
    table = jnp.array([self.count(f) for f in range(most + 1)])
    return lambda frames: table[frames]

  def leading(self, frames: int, prompt_frames: int) -> int:
    """Steps that hold nothing but the first `prompt_frames` of `frames`."""
    layout = self.decoder.pattern.layout(frames, self.slots)
    return layout.given_steps(prompt_frames)

  # -- whole rows -------------------------------------------------------------

  def join(self, parts: Any) -> Array:
    """What is given, of all cells: [B, F, K]."""
    return jnp.asarray(parts)

  def split(self, x: Array) -> Any:
    """The inverse of `join`."""
    return x

  def end(self) -> Int[Array, 'B']:
    """Where rows end at most, as `steps.State.frames` has it."""
    return jnp.asarray(self.lengths, jnp.int32)

  def lengths_at(self, frames: Int[Array, 'B']) -> Any:
    """The lengths of rows that end there."""
    return frames

  def fill(
      self, given: Int[Array, 'B F K'], mask: Bool[Array, 'B F K']
  ) -> tuple[Int[Array, 'B F K'], Bool[Array, 'B F K']]:
    """What is given, and what a row begins with otherwise."""
    return self.decoder.start.fill(given, mask)

  def prompts(
      self, mask: Bool[Array, 'B F K'], most: int
  ) -> tuple[Bool[Array, 'B F #K'], int]:
    """Where codes may be taken in at once, and in how many steps they stand.

    Args:
      mask: where codes are given.
      most: frames to take in at once.
    """
    # Nothing comes before frames that are given to every row: they are no steps.
    most = max(most, self.begun)
    leading = jnp.cumprod(jnp.all(mask, axis=2), axis=1, dtype=jnp.int32)
    leading = jnp.minimum(jnp.minimum(leading.sum(axis=1), most), self.end())
    shown = jnp.arange(mask.shape[1]) < leading[:, None]
    count = self.leading(mask.shape[1], most) if most else 0
    return shown[..., None], count


class Segments(Frames, kw_only=True):
  """Segments of one decoder, packed without gaps in each row.

  Attributes:
    table: the cells of all steps of the rows, in their order.
    before: [B] steps of all segments but the last.
    sizes: frames of the longest of each segment.
    observed: leading steps that the observed segments have in the longest row.
  """

  table: tuple[Array, ...]
  before: Int[Array, 'B']
  sizes: tuple[int, ...] = _static(pytree_node=False)
  observed: int = _static(pytree_node=False)

  @classmethod
  def of(
      cls, decoder: steps_lib.Steps, sizes: tuple[int, ...], **fields
  ) -> 'Segments':
    """The track of rows whose segments have these lengths.

    Args:
      decoder: what generates.
      sizes: frames of the longest of each segment.
      **fields: the other attributes of `Track`.
    """
    segments, lengths = decoder.sequence.segments, fields['lengths']
    labels = [s.label for s in segments]
    layout = decoder.sequence.layout(dict(zip(labels, sizes, strict=True)))
    rows, count = len(lengths[labels[0]]), len(layout.segment)
    step = jnp.broadcast_to(jnp.arange(count), (rows, count))
    segment, frame, slot, exists = layout.cells(step, lengths)
    frame += jnp.asarray(cls.offsets(sizes))[segment][..., None]
    before = jnp.zeros(rows, jnp.int32)
    for s, size in zip(segments[:-1], sizes, strict=False):
      before += _ends(s, size)[lengths[s.label]]
    return cls(
        decoder=decoder,
        table=(frame, slot, exists, segment),
        before=before,
        sizes=sizes,
        observed=layout.leading,
        **fields,
    )

  @staticmethod
  def offsets(sizes: tuple[int, ...]) -> Int[np.ndarray, 'S']:
    """Where the first frame of each segment stands among those of all."""
    return np.cumsum([0, *sizes[:-1]])

  @property
  def offset(self):
    return int(self.offsets(self.sizes)[-1])

  @property
  def _last(self):
    return self.decoder.sequence.segments[-1]

  def count(self, frames):
    return self.table[0].shape[1]

  def cells(self, step, frames):
    most = self.count(None)
    index = jnp.clip(step, 0, most - 1).reshape(len(step), -1)

    def at(x):
      own = index.reshape(*index.shape, *[1] * (x.ndim - 2))
      own = jnp.take_along_axis(x, own, axis=1)
      return own.reshape(*step.shape, *x.shape[2:])

    frame, slot, exists, segment = map(at, self.table)
    inside = frame < frames.reshape(-1, *[1] * step.ndim)
    return frame, slot, exists & inside & (step < most)[..., None], segment

  def ends(self, most):
    table = _ends(self._last, self.sizes[-1])
    return lambda frames: self.before + table[frames - self.offset]

  def join(self, parts):
    tables = []
    for s in self.decoder.sequence.segments:
      x = jnp.asarray(parts[s.label])
      table = jnp.zeros((*x.shape[:2], self.slots), x.dtype)
      tables.append(table.at[..., list(s.slots)].set(x))
    return jnp.concatenate(tables, axis=1)

  def split(self, x):
    segments = self.decoder.sequence.segments
    parts = jnp.split(x, self.offsets(self.sizes)[1:], axis=1)
    return {
        s.label: part[..., list(s.slots)]
        for s, part in zip(segments, parts, strict=True)
    }

  def end(self):
    length = jnp.asarray(self.lengths[self._last.label], jnp.int32)
    return self.offset + length

  def lengths_at(self, frames):
    return {**self.lengths, self._last.label: frames - self.offset}

  def fill(self, given, mask):
    return given, mask

  def prompts(self, mask, most):
    # Observed segments that come before all others are taken in at once.
    return mask, max(self.observed, self.begun)


class Stages(Segments, kw_only=True):
  """Segments that are slots of the same frames."""

  join, split, lengths_at = Frames.join, Frames.split, Frames.lengths_at

  @staticmethod
  def offsets(sizes):
    return np.zeros(len(sizes), int)


def _ends(segment, most):
  """How many steps a segment of each length up to `most` has."""
  steps, slots = segment.pattern.steps, len(segment.slots)
  return jnp.array([steps(f, slots) for f in range(most + 1)])


def whole(decoder: steps_lib.Steps, given: Any, **fields) -> Frames:
  """The track of whole rows.

  Args:
    decoder: of frames or of segments.
    given: codes [B, F, K]; of segments, by their labels.
    **fields: the other attributes of `Track`, `lengths` among them: [B] frames
      of each row; of segments, by their labels.
  """
  if isinstance(decoder, decoder_lib.Decoder):
    return Frames(decoder, **fields)
  kind = Stages if isinstance(decoder, decoder_lib.Framed) else Segments
  codes, fields['lengths'] = decoder.segments(given, fields['lengths'])
  sizes = tuple(codes[s.label].shape[1] for s in decoder.sequence.segments)
  return kind.of(decoder, sizes, **fields)
