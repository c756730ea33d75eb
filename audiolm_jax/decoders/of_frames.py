"""What decoders of frames of codes share: what their batches hold."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array
import numpy as np

from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import scores as scores_lib


class OfFrames(conditioned.Conditioned):
  """A decoder of frames with `vocabularies`; 'frames' is its only stream.

  A subclass says which slots it predicts: `predicted`.
  """

  @nn.nowrap
  def check(self, codes: Any, num_frames: Any, mask: Any = None) -> None:
    """Refuses codes and lengths out of range; see `ranges`.

    Args:
      codes: as `score` takes them.
      num_frames: as `score` takes them.
      mask: which of the codes are looked at; None for all.

    Raises:
      ValueError: naming the first that is wrong.
    """
    sizes = self.vocabularies
    ranges.check_frames(codes, num_frames, sizes, mask=mask)

  @property
  def streams(self) -> dict[str, scores_lib.Stream]:
    """All streams of its batches, by label: the columns of one are its slots."""
    stream = scores_lib.Stream('num_frames', 'bits_per_frame', self.predicted)
    return {'frames': stream}

  @nn.nowrap
  def slots(self, label: str) -> tuple[int, ...]:
    """Which of its slots a stream has."""
    del label
    return tuple(range(len(self.vocabularies)))

  @nn.nowrap
  def example_batch(
      self, batch_size: int, lengths: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """A batch of zeros.

    Args:
      batch_size: B.
      lengths: frames of a row, for each stream.
    """
    shape = (batch_size, lengths['frames'], len(self.vocabularies))
    return {
        'codes': np.zeros(shape, np.int32),
        'num_frames': np.zeros(batch_size, np.int32),
        **self._no_conditions(batch_size),
    }

  @nn.nowrap
  def read(self, batch: Mapping[str, Array]) -> tuple[Any, ...]:
    """What `score` takes of a batch, in the order of its arguments."""
    conditions = factors.unflatten(batch, sorted(self.conditions))
    return batch['codes'], batch['num_frames'], None, conditions
