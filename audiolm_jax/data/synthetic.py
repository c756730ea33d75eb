"""Batches made from nothing but a seed and a position, for the toy objective."""

import dataclasses
import time

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import base as data_base


class _Source(data_base.BatchSource):
  """Row r of batch p is a function of (seed, p, r) only."""

  def __init__(self, settings, batch_size, seed, shard):
    self._settings, self._seed = settings, seed
    self._batch_size, self._shard = batch_size, shard
    self._position = 0

  def next(self, train_state):
    del train_state
    time.sleep(self._settings.delay)
    s = self._settings
    index, count = self._shard
    rng = np.random.default_rng((self._seed, self._position))
    rows = self._batch_size * count
    x = rng.standard_normal((rows, s.positions, s.features), np.float32)
    batch = {
        'x': x,
        'y': np.sin(x.sum(-1)) + np.float32(0.5),
        'lengths': rng.integers(0, s.positions + 1, rows).astype(np.int32),
        'id': (self._position * rows + np.arange(rows)).astype(np.int32),
    }
    self._position += 1
    mine = slice(index * self._batch_size, (index + 1) * self._batch_size)
    batch = {name: value[mine] for name, value in batch.items()}
    if self._position - 1 == s.nan_at:
      batch['x'] = np.full_like(batch['x'], np.nan)
    return batch

  def get_state(self):
    return {'position': self._position}

  def set_state(self, state):
    self._position = state['position']


@dataclasses.dataclass(frozen=True)
class Synthetic:
  """y = sin(sum of x) + 1/2, of which a random number of positions counts.

  Attributes:
    features: D.
    positions: N.
    nan_at: the batch whose inputs are not finite, to test what then happens.
    delay: seconds that each batch takes, to test how that is hidden.
  """

  features: config.Positive = 4
  positions: config.Positive = 5
  nan_at: int = -1
  delay: config.NonNegative = 0.0

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int]
  ) -> data_base.BatchSource:
    """The source; `batch_size` is this shard's share of a batch."""
    return _Source(self, batch_size, seed, shard)
