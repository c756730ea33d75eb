"""A decoder of frames of discrete codes."""

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import patterns
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import starts
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.patterns import interleaving
from audiolm_jax.streaming import base as streaming_base


class Decoder(steps_lib.Steps):
  """An autoregressive model of frames of discrete codes.

  Attributes:
    pattern: how slots are laid out in steps.
  """

  pattern: Annotated[Any, config.Kind(lambda: patterns.PATTERNS)] = (
      interleaving.Delay()
  )

  @nn.nowrap
  def _begins_whole(self):
    return not self.pattern.layout(1, len(self.vocabularies)).step.any()

  @property
  def step_layout(self) -> heads.StepLayout:
    groups = self.pattern.groups(len(self.vocabularies))
    return heads.StepLayout(self.vocabularies, groups)

  def _lay_out(self, codes, num_frames):
    ranges.check_frames(codes, num_frames, self.vocabularies)
    layout = self.pattern.layout(*codes.shape[1:])
    exists = layout.scored(num_frames)
    steps = jnp.where(exists, layout.to_steps(codes), 0)
    if layout.streamable:
      return steps_lib.Table(layout, steps, exists, layout.active(num_frames))
    packing = layout.packing(num_frames)
    return steps_lib.Table(layout, steps, exists, packing.mask, packing)

  def _parts(self, layout, y, codes, exists):
    return {'frames': steps_lib.Part(layout, y, codes, exists, layout.slot)}

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
        *self._join(x, mask, context), context=context
    )
    y = self._own(output.y, count, context)
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

  def extend(
      self,
      state: Any,
      codes: Int[Array, 'B n G'],
      slots: Int[Array, 'B n G'],
      exists: Bool[Array, 'B n G'],
      mask: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 steps; what predicts the step after them.

    Args:
      state: where the rows stand.
      codes: of the steps; anything where not `exists`.
      slots: of the steps' positions.
      exists: positions that hold a frame.
      mask: how many of the n steps each row takes in, as a prefix; None for
        all. A row goes on later as if the others had never been.
      context: see the backbone.

    Returns:
      The output at each row's last step taken in (unspecified for none), for
      `sample`; the next state.
    """
    return self._take(state, self._embed(codes, slots, exists), mask, context)
