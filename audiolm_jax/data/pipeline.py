"""Grain pipelines: random access to examples in, resumable batches out.

Batch n of an endless, seeded stream is a function of n alone. So the position
is one number, a resumed stream equals an uninterrupted one whatever the number
of workers, and the shards of all processes are the rows of one global batch.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import os
import threading
import time
from typing import Any

from absl import flags
import grain
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import base as data_base

_POLL_SECONDS = 0.5
_NEVER = 1 << 62
# Of examples, epochs together: Grain's own repeat() is one too many for len()
# where batches have one row.
_ENDLESS = 1 << 62

Crop = Callable[[int, np.random.Generator], dict[str, np.ndarray]]


class CropSource(data_base.BatchSource):
  """Endless shuffled batches of random crops.

  Args:
    crop: (example index, generator) -> arrays of one row; must pickle if there
      are workers. It need not return `id`.
    visits: [N] how often an epoch visits each example; 0 leaves one out.
    batch_size: rows of this process.
    seed: of the order and of `crop`'s generators.
    shard: (index, count) of this process.
    workers: processes that read ahead; 0 reads ahead in threads. They end with
      this process, however it ends, and share no memory with it.
    buffer: batches to read ahead (per worker).
  """

  def __init__(
      self,
      crop: Crop,
      visits: Sequence[int],
      *,
      batch_size: int,
      seed: int,
      shard: tuple[int, int] = (0, 1),
      workers: int = 0,
      buffer: int = 4,
  ):
    order = np.repeat(np.arange(len(visits)), visits)
    if not len(order):
      raise config.ConfigError('No example is left to draw batches from.')
    self._batches = (
        grain.MapDataset.source(order)
        .seed(seed)
        .shuffle()
        .repeat(_ENDLESS // len(order))
        .random_map(functools.partial(_example, crop))
        .batch(batch_size)
    )
    self._shard = shard
    self._workers = workers
    self._buffer = buffer
    self._position = 0
    self._iterator = None

  def next(self, train_state: Any) -> dict[str, np.ndarray]:
    del train_state
    if self._iterator is None:
      self._iterator = self._open()
    batch = next(self._iterator)
    self._position += 1
    return batch

  def get_state(self) -> dict[str, Any]:
    return {'batches': self._position}

  def set_state(self, state: dict[str, Any]) -> None:
    self.close()
    self._position = int(state['batches'])

  def close(self) -> None:
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def _open(self):
    index, count = self._shard
    batches = self._batches.slice(
        slice(self._position * count + index, None, count)
    )
    if not self._workers:
      return iter(
          batches.to_iter_dataset(
              grain.ReadOptions(
                  num_threads=1, prefetch_buffer_size=self._buffer
              )
          )
      )
    if not flags.FLAGS.is_parsed():
      # Grain reads flags; in Colab and pytest nobody has parsed any.
      flags.FLAGS.mark_as_parsed()
    dataset = grain.experimental.WithOptionsIterDataset(
        batches.to_iter_dataset(
            grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        ),
        # Batches come through pipes, which is no slower here: segments of
        # shared memory would be left behind where a whole group is killed.
        grain.experimental.DatasetOptions(min_shm_size=_NEVER),
    )
    return iter(
        dataset.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=self._buffer
            ),
            worker_init_fn=functools.partial(_end_with, os.getpid()),
        )
    )


def buckets(
    lengths: Sequence[int], bounds: Sequence[int], batch_sizes: Sequence[int]
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Groups examples of like length, so that batches pad little.

  Args:
    lengths: [N] of the examples.
    bounds: ascending lengths to pad to; the last must hold the longest.
    batch_sizes: rows of a batch for each bound.

  Yields:
    (bound, batch size, indices): at most `batch size` indices, ascending in
    length; together they hold every example once.

  Raises:
    ValueError: if an example is longer than the last bound.
  """
  lengths = np.asarray(lengths)
  if len(lengths) and lengths.max() > bounds[-1]:
    raise ValueError(
        f'An example of length {lengths.max()} does not fit the longest bucket'
        f' of {bounds[-1]}.'
    )
  order = np.argsort(lengths, kind='stable')
  which = np.searchsorted(bounds, lengths[order])
  for b, (bound, size) in enumerate(zip(bounds, batch_sizes, strict=True)):
    members = order[which == b]
    for start in range(0, len(members), size):
      yield bound, size, members[start : start + size]


def doubled(
    first: Sequence[tuple[float, int]], longest: float, size: int = 1
) -> tuple[list[float], list[int]]:
  """Bounds and batch sizes as `buckets` takes them, up to the longest example.

  Args:
    first: (bound, batch size), ascending.
    longest: past the last of them each bound is twice the one before.
    size: batch size of those.
  """
  bounds, sizes = map(list, zip(*first, strict=True))
  while bounds[-1] < longest:
    bounds.append(2 * bounds[-1])
    sizes.append(size)
  return bounds, sizes


def padded(length: int, shortest: int) -> int:
  """The next of 1, 1.5, 2, 3, 4, 6, ... times the shortest; 0 for 0.

  Such lengths are few, and a third of each is padding at most, but for what is
  below the shortest.
  """
  if not length:
    return 0
  octave = shortest
  while octave < length:
    if octave * 3 // 2 >= length:
      return octave * 3 // 2
    octave *= 2
  return octave


def pad(rows: Sequence[np.ndarray], batch_size: int, length: int) -> np.ndarray:
  """Stacks [n, ...] rows into zeros [batch_size, length, ...]."""
  result = np.zeros((batch_size, length, *rows[0].shape[1:]), rows[0].dtype)
  for i, row in enumerate(rows):
    result[i, : len(row)] = row
  return result


def _example(crop: Crop, index, rng: np.random.Generator):
  row = crop(int(index), rng)
  return {**row, 'id': np.int32(index)}


def _end_with(parent: int, worker: int, workers: int) -> None:
  """Makes this worker end when its parent has, even by SIGKILL.

  A death signal (prctl) would come when the *thread* that started the worker
  ends, and Grain starts workers from short-lived threads; so a thread looks.
  """
  del worker, workers

  def watch():
    while os.getppid() == parent:
      time.sleep(_POLL_SECONDS)
    os._exit(1)  # pylint: disable=protected-access

  threading.Thread(target=watch, daemon=True).start()
