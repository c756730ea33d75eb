"""A decoder of sequences of segments, such as text and then speech."""

from typing import Any

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import ops
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.streaming import base as streaming_base


class SequenceScores(flax.struct.PyTreeNode):
  """The scores of a sequence's predicted segments.

  Attributes:
    segments: by label.
    losses: see `decoder.Scores`, over all segments.
    steps: likewise.
  """

  segments: dict[str, decoder_lib.Scores]
  losses: dict[str, Float[Array, 'B']]
  steps: Int[Array, 'B']


class Segmented(decoder_lib.Steps, kw_only=True):
  """An autoregressive model of one segment after the other.

  A step's input also tells of which segment the step is: lengths are given, not
  modelled, and without it a model could not know when a segment ends.

  Attributes:
    sequence: the segments, of this decoder's slots.
  """

  sequence: sequence_lib.Sequence

  def setup(self):
    super().setup()
    self.turns = ops.weight(
        self,
        'segment',
        nn.initializers.normal(0.02),
        (len(self.sequence.segments), self.backbone.width),
        (None, 'embed'),
    )

  @nn.nowrap
  def _begins_whole(self):
    return self.sequence.segments[0].role == 'observe'

  @property
  def step_layout(self) -> heads.StepLayout:
    return heads.StepLayout(self.vocabularies, self.sequence.groups)

  def score(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> SequenceScores:
    """Log-probability of every code of the segments that are predicted.

    Args:
      codes: of each segment; anything past a row's length changes nothing.
      num_frames: frames of each row, of each segment.
      context: see `decoder.Decoder.score`.
      conditions: likewise.
    """
    forced = self._teacher_forced(codes, num_frames, context, conditions)
    found = {}
    for label, own, *seen in self._predicted(forced):
      log_prob, scored = self.head.log_prob(
          *seen, self.step_layout, self._table()
      )
      found[label] = decoder_lib.Scores(
          own.to_frames(jnp.where(scored, log_prob, 0)),
          own.to_frames(scored),
          tag=self.head.tag,
      )
    return SequenceScores(found, forced.output.losses, forced.count)

  def code_logits(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> dict[str, Float[Array, 'B F K V']]:
    """Of each predicted segment; see `decoder.Decoder.code_logits`."""
    forced = self._teacher_forced(codes, num_frames, context, conditions)
    return {
        label: own.to_frames(
            self.head.logits(*seen, self.step_layout, self._table())
        )
        for label, own, *seen in self._predicted(forced)
    }

  def _teacher_forced(
      self, codes, num_frames, context, conditions
  ) -> decoder_lib.TeacherForced:
    """As in `decoder.Decoder`."""
    self.check(codes, num_frames)
    batch = next(iter(codes.values())).shape[0]
    context = self._context(context, conditions, batch)
    layout = self.sequence.layout({k: c.shape[1] for k, c in codes.items()})
    exists = layout.scored(num_frames)
    steps = jnp.where(exists, layout.to_steps(codes), 0)
    packing = layout.packing(num_frames)
    output = self._transform(
        steps,
        layout.slot,
        exists,
        packing.mask,
        packing,
        self._turn(layout.segment[None]),
        context,
    )
    count = self._count(packing.mask, context)
    asked = self._asked(exists, packing)
    return decoder_lib.TeacherForced(layout, steps, asked, output, count)

  def _predicted(self, forced):
    """(label, layout, what the head sees) of each segment that is predicted."""
    layout = forced.layout
    for segment in layout.segments:
      if segment.role == 'observe':
        continue
      rows, group = layout.rows[segment.label], segment.group
      yield (
          segment.label,
          layout.layouts[segment.label],
          forced.output.y[:, rows],
          forced.steps[:, rows, :group],
          forced.exists[:, rows, :group],
          layout.slot[rows, :group],
      )

  @nn.nowrap
  def check(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
  ) -> None:
    """Refuses segments' codes and lengths out of range; see `ranges`.

    Raises:
      ValueError: naming the segment.
    """
    for segment in self.sequence.segments:
      label, slots = segment.label, segment.slots
      ranges.check_frames(
          codes[label], num_frames[label], self.vocabularies, label, slots
      )

  def extend(
      self,
      state: Any,
      codes: Int[Array, 'B n G'],
      slots: Int[Array, 'B n G'],
      exists: Bool[Array, 'B n G'],
      segments: Int[Array, 'B n'],
      mask: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 steps; what predicts the step after them.

    Args:
      state: see `decoder.Decoder.extend`, as the other arguments.
      codes: of the steps.
      slots: of the steps' places.
      exists: places that hold a frame.
      segments: of the step after each of them, that it is to predict.
      mask: how many of the n steps each row takes in.
      context: see the backbone.
    """
    x = self._embed(codes, slots, exists) + self._turn(segments)
    return self._take(state, x, mask, context)

  def _turn(self, segments):
    return ops.take(self.turns, segments, jnp.dtype(self.backbone.dtype))


class Staged(Segmented, kw_only=True):
  """A decoder of frames whose slots are the segments of a sequence.

  AudioLM's stages (2209.03143): each observes what the stage before it made of
  the same frames and predicts more of their slots.
  """

  @property
  def predicted(self) -> tuple[int, ...]:
    """The slots that are scored, ascending."""
    return tuple(
        sorted(
            slot
            for segment in self.sequence.segments
            for slot in segment.slots
            if segment.role == 'predict'
        )
    )

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> decoder_lib.Scores:
    """See `decoder.Decoder.score`; observed slots are not scored."""
    found = super().score(
        *self._segments(codes, num_frames), context, conditions
    )
    log_prob = jnp.zeros(codes.shape, jnp.float32)
    mask = jnp.zeros(codes.shape, bool)
    for segment in self.sequence.segments:
      if segment.label in found.segments:
        scores, slots = found.segments[segment.label], list(segment.slots)
        log_prob = log_prob.at[..., slots].set(scores.log_prob)
        mask = mask.at[..., slots].set(scores.mask)
    return decoder_lib.Scores(
        log_prob, mask, found.losses, found.steps, self.head.tag
    )

  def code_logits(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B F K V']:
    """See `decoder.Decoder.code_logits`; observed slots are at -inf."""
    found = super().code_logits(
        *self._segments(codes, num_frames), context, conditions
    )
    shape = (*codes.shape, max(self.vocabularies))
    logits = jnp.full(shape, -jnp.inf, jnp.float32)
    for segment in self.sequence.segments:
      if segment.label in found:
        slots = list(segment.slots)
        known = heads_base.pad_vocabulary(found[segment.label], shape[-1])
        logits = logits.at[:, :, slots].set(known)
    return logits

  @nn.nowrap
  def _segments(self, codes, num_frames):
    """Codes and lengths by label."""
    segments = self.sequence.segments
    return (
        {s.label: codes[..., list(s.slots)] for s in segments},
        {s.label: num_frames for s in segments},
    )
