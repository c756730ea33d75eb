"""Decoders of frames of discrete codes."""

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped
import numpy as np

from audiolm_jax import config
from audiolm_jax import patterns
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import of_frames
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import starts
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.streaming import base as streaming_base


class Framed(steps_lib.Steps, of_frames.OfFrames):
  """A decoder of frames: its segments are slots of the same frames.

  Batches are of frames, the only stream.
  """

  @nn.nowrap
  def segments(
      self, codes: Shaped[Array, 'B F K'], num_frames: Int[Array, 'B']
  ) -> tuple[dict[str, Shaped[Array, 'B F k']], dict[str, Int[Array, 'B']]]:
    segments = self.sequence.segments
    return (
        {s.label: codes[..., list(s.slots)] for s in segments},
        {s.label: num_frames for s in segments},
    )

  @nn.nowrap
  def _joined(self, parts, fill):
    if not self._many:
      (frames,) = parts.values()
      return {'frames': frames}
    frames = fill
    for segment in self.sequence.segments:
      if segment.label in parts:
        part = parts[segment.label]
        if part.ndim > 3:
          part = heads_base.pad_vocabulary(part, max(self.vocabularies))
        shape = (*part.shape[:2], len(self.vocabularies), *part.shape[3:])
        frames = jnp.broadcast_to(jnp.asarray(frames, part.dtype), shape)
        frames = frames.at[:, :, list(segment.slots)].set(part)
    return {'frames': frames}


class Decoder(Framed):
  """An autoregressive model of frames of discrete codes: of one segment.

  Attributes:
    pattern: how slots are laid out in steps.
  """

  pattern: Annotated[Any, config.Kind(lambda: patterns.PATTERNS)] = (
      interleaving.Delay()
  )

  @property
  def sequence(self) -> sequence_lib.Sequence:
    """The frames, as the only segment."""
    slots = tuple(range(len(self.vocabularies)))
    return sequence_lib.Sequence(
        (sequence_lib.Segment('frames', slots, self.pattern),)
    )

  @nn.nowrap
  def _begins_whole(self):
    return not self.pattern.layout(1, len(self.vocabularies)).step.any()

  def states(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B F D']:
    """The backbone's outputs that predict the first slot of each frame, but one.

    State f is the one that predicts frame f + 1, so that it has read frame f (of
    slots that the pattern delays, fewer frames). The last one is zero, and those
    from a row's last frame on are unspecified.

    Args:
      codes: as `score` takes them.
      num_frames: frames of each row.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
    """
    parts, _, _ = self._teacher_forced(codes, num_frames, context, conditions)
    layout, h, seen, *_ = parts['frames']
    h = jnp.broadcast_to(h[:, :, None], (*seen.shape, h.shape[-1]))
    first = layout.to_frames(h)[:, :, 0]
    return jnp.pad(first[:, 1:], ((0, 0), (0, 1), (0, 0)))

  @nn.nowrap
  def cut(self, params: Any, layers: int) -> tuple['Decoder', Any]:
    """The decoder and its parameters with the first layers of its stack alone.

    Only `states` of it mean something: its head is of the last layer.

    Args:
      params: the decoder's.
      layers: see `Stack.cut`.

    Raises:
      ValueError: see `Stack.cut`.
    """
    backbone, first = self.backbone.cut(params['backbone'], layers)
    decoder = self.clone(parent=None, name=None, backbone=backbone)
    return decoder, {**params, 'backbone': first}

  def logits(
      self,
      ids: Int[Array, 'B N'],
      num_frames: Int[Array, 'B'] | None = None,
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B N V']:
    """What each id of a sequence predicts of the next, for K = 1.

    What it predicts of the first, if it does, is `code_logits`'.

    Args:
      ids: the first is a row's first frame, and comes after what `start` says.
      num_frames: of each row; None for all of it.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.

    Raises:
      ValueError: if a frame has more than one slot.
    """
    if len(self.vocabularies) > 1:
      raise ValueError(f'logits of {len(self.vocabularies)} slots: score them')
    ranges.check_frames(ids[..., None], num_frames, self.vocabularies, 'ids')
    if num_frames is None:
      num_frames = jnp.full(ids.shape[0], ids.shape[1])
    codes = jnp.pad(ids, ((0, 0), (0, 1)))[..., None]
    slots = jnp.zeros_like(codes)
    inputs = self.start.inputs(starts.Inputs(codes, slots, slots == 0))
    # What stands before the ids.
    before = 1 - self.start.given
    count = before + ids.shape[1]
    x = self._embed(*inputs)[:, :count]
    mask = streaming_base.length_mask(num_frames + before, count)
    context = self._context(context, conditions, ids.shape[0])
    output = self.backbone.transform(
        *conditioned.join(x, mask, context), context=context
    )
    y = conditioned.own(output.y, count, context)
    return self.next_logits(y[:, before:])

  def next_logits(self, y: Float[Array, 'B N D']) -> Float[Array, 'B N V']:
    """Of outputs of the backbone, for K = 1."""
    none = jnp.zeros((*y.shape[:2], 1), jnp.int32)
    logits = self.head.logits(
        y,
        none,
        none == 0,
        np.zeros((y.shape[1], 1), int),
        self.step_layout,
        self._table(),
    )
    return logits[:, :, 0]
