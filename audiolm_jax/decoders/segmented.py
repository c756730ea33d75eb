"""Decoders of several segments: text and then speech, or stage after stage."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array
import numpy as np

from audiolm_jax.data import factors
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.patterns import sequence as sequence_lib


class Segmented(steps_lib.Steps, kw_only=True):
  """An autoregressive model of one segment after the other; see `Steps`.

  Attributes:
    sequence: the segments, of this decoder's slots.
  """

  sequence: sequence_lib.Sequence

  @property
  def streams(self) -> dict[str, scores_lib.Stream]:
    """All streams of its batches, by label: the columns of one are its slots."""
    return {
        s.label: scores_lib.Stream(
            f'num_frames/{s.label}',
            f'{s.label}/bits_per_frame',
            self._scored(s),
            f'nll_{s.label}',
        )
        for s in self.sequence.segments
    }

  @nn.nowrap
  def slots(self, label: str) -> tuple[int, ...]:
    """Which of its slots a stream has."""
    (slots,) = (s.slots for s in self.sequence.segments if s.label == label)
    return slots

  @nn.nowrap
  def segments(self, codes: Any, num_frames: Any) -> tuple[Any, Any]:
    """What `score` takes, by the segments' labels: codes, and lengths."""
    return codes, num_frames

  @nn.nowrap
  def _joined(self, parts, fill):
    """By stream, what is known of the codes [B, F, K, ...] of segments.

    Args:
      parts: of the segments that are predicted, by label.
      fill: what stands for codes that are not predicted.
    """
    del fill
    return parts

  @nn.nowrap
  def check(self, codes: Any, num_frames: Any, mask: Any = None) -> None:
    """Refuses codes and lengths out of range; see `ranges`.

    Args:
      codes: as `score` takes them.
      num_frames: as `score` takes them.
      mask: which of the codes are looked at, in arrays as theirs; None for all.

    Raises:
      ValueError: naming the first that is wrong.
    """
    for segment in self.sequence.segments:
      label, slots = segment.label, segment.slots
      ranges.check_frames(
          codes[label],
          num_frames[label],
          self.vocabularies,
          label,
          slots,
          None if mask is None else mask[label],
      )

  @nn.nowrap
  def example_batch(
      self, batch_size: int, lengths: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """A batch of zeros.

    Args:
      batch_size: B.
      lengths: frames of a row, for each stream.
    """
    batch = self._no_conditions(batch_size)
    for segment in self.sequence.segments:
      shape = (batch_size, lengths[segment.label], len(segment.slots))
      batch[f'codes/{segment.label}'] = np.zeros(shape, np.int32)
      batch[f'num_frames/{segment.label}'] = np.zeros(batch_size, np.int32)
    return batch

  @nn.nowrap
  def read(self, batch: Mapping[str, Array]) -> tuple[Any, ...]:
    """What `score` takes of a batch, in the order of its arguments."""
    labels = [segment.label for segment in self.sequence.segments]
    codes, num_frames = (
        {label: batch[f'{name}/{label}'] for label in labels}
        for name in ('codes', 'num_frames')
    )
    conditions = factors.unflatten(batch, sorted(self.conditions))
    return codes, num_frames, None, conditions


class Staged(decoder_lib.Framed, kw_only=True):
  """A decoder of frames whose slots are the segments of a sequence.

  AudioLM's stages (2209.03143): each observes what the stage before it made of
  the same frames and predicts more of their slots.

  Attributes:
    sequence: the segments, of this decoder's slots.
  """

  sequence: sequence_lib.Sequence
