"""A decoder of sequences of segments, such as text and then speech."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.data import factors
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.streaming import base as streaming_base


class Segmented(steps_lib.Steps, kw_only=True):
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

  @property
  def streams(self) -> dict[str, scores_lib.Stream]:
    """The segments, by label; the columns of one are its own slots."""
    return {
        s.label: scores_lib.Stream(
            f'num_frames/{s.label}',
            f'{s.label}/bits_per_frame',
            tuple(range(len(s.slots))) if s.role == 'predict' else (),
            f'nll_{s.label}',
        )
        for s in self.sequence.segments
    }

  @nn.nowrap
  def slots(self, label):
    (slots,) = (s.slots for s in self.sequence.segments if s.label == label)
    return slots

  @nn.nowrap
  def example_batch(self, batch_size, lengths):
    batch = self._no_conditions(batch_size)
    for segment in self.sequence.segments:
      shape = (batch_size, lengths[segment.label], len(segment.slots))
      batch[f'codes/{segment.label}'] = np.zeros(shape, np.int32)
      batch[f'num_frames/{segment.label}'] = np.zeros(batch_size, np.int32)
    return batch

  @nn.nowrap
  def read(self, batch):
    labels = [segment.label for segment in self.sequence.segments]
    codes, num_frames = (
        {label: batch[f'{name}/{label}'] for label in labels}
        for name in ('codes', 'num_frames')
    )
    conditions = factors.unflatten(batch, sorted(self.conditions))
    return codes, num_frames, None, conditions

  def _lay_out(self, codes, num_frames):
    self.check(codes, num_frames)
    layout = self.sequence.layout({k: c.shape[1] for k, c in codes.items()})
    exists = layout.scored(num_frames)
    steps = jnp.where(exists, layout.to_steps(codes), 0)
    packing = layout.packing(num_frames)
    turns = self._turn(layout.segment[None])
    return steps_lib.Table(layout, steps, exists, packing.mask, packing, turns)

  def _parts(self, layout, y, codes, exists):
    parts = {}
    for segment in layout.segments:
      if segment.role == 'predict':
        rows, group = layout.rows[segment.label], segment.group
        parts[segment.label] = steps_lib.Part(
            layout.layouts[segment.label],
            y[:, rows],
            codes[:, rows, :group],
            exists[:, rows, :group],
            layout.slot[rows, :group],
        )
    return parts

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
      slots: of the steps' positions.
      exists: positions that hold a frame.
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

  # Batches are of frames again.
  streams = steps_lib.Steps.streams
  slots = steps_lib.Steps.slots
  example_batch = steps_lib.Steps.example_batch
  read = steps_lib.Steps.read

  def score(self, codes, num_frames, context=None, conditions=None):
    scores = super().score(
        *self.segments(codes, num_frames), context, conditions
    )
    log_prob = jnp.zeros(codes.shape, jnp.float32)
    mask = jnp.zeros(codes.shape, bool)
    for segment in self.sequence.segments:
      if segment.label in scores.streams:
        stream, slots = scores[segment.label], list(segment.slots)
        log_prob = log_prob.at[..., slots].set(stream.log_prob)
        mask = mask.at[..., slots].set(stream.mask)
    frames = scores_lib.StreamScores(log_prob, mask)
    return scores.replace(streams={'frames': frames})

  def code_logits(self, codes, num_frames, context=None, conditions=None):
    streams = super().code_logits(
        *self.segments(codes, num_frames), context, conditions
    )
    shape = (*codes.shape, max(self.vocabularies))
    logits = jnp.full(shape, -jnp.inf, jnp.float32)
    for segment in self.sequence.segments:
      if segment.label in streams:
        slots = list(segment.slots)
        known = heads_base.pad_vocabulary(streams[segment.label], shape[-1])
        logits = logits.at[:, :, slots].set(known)
    return {'frames': logits}

  @nn.nowrap
  def segments(
      self, codes: Int[Array, 'B F K'], num_frames: Int[Array, 'B']
  ) -> tuple[dict[str, Int[Array, 'B F k']], dict[str, Int[Array, 'B']]]:
    """Codes of all slots and lengths of frames, by the segments' labels."""
    segments = self.sequence.segments
    return (
        {s.label: codes[..., list(s.slots)] for s in segments},
        {s.label: num_frames for s in segments},
    )
