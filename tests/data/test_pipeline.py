"""Batches: resumable, sharded, covering, and workers that die in time."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import pipeline


def draw(index, rng):
  """A row that shows which example and which random numbers it got."""
  return {'x': np.float32([index, rng.uniform()])}


def _source(visits=(1,) * 10, **options):
  options = {'batch_size': 4, 'seed': 3, **options}
  return pipeline.CropSource(draw, visits, **options)


def _take(source, count):
  batches = [source.next(None) for _ in range(count)]
  return {
      key: np.stack([batch[key] for batch in batches]) for key in batches[0]
  }


def _same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])


def test_epochs_visit_as_told_in_ever_new_orders():
  taken = _take(_source(visits=(1, 0, 3, 1, 1)), 9)  # 36 rows, 6 epochs of 6.
  epochs = taken['id'].reshape(6, 6)
  for epoch in epochs:
    assert collections.Counter(epoch.tolist()) == {0: 1, 2: 3, 3: 1, 4: 1}
  assert len({tuple(epoch) for epoch in epochs}) > 1
  assert taken['id'].dtype == np.int32
  np.testing.assert_array_equal(taken['id'], taken['x'][..., 0])
  assert len(np.unique(taken['x'][..., 1])) == 36  # No two crops alike.


def test_seed_decides():
  _same(_take(_source(), 5), _take(_source(), 5))
  a, b = _take(_source(), 5), _take(_source(seed=4), 5)
  assert (a['id'] != b['id']).any() and (a['x'] != b['x']).any()


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_equals_uninterrupted(workers):
  whole = _take(_source(), 8)
  source = _source(workers=workers)
  first = _take(source, 3)
  state = source.get_state()
  source.close()
  source = _source(workers=workers)
  source.set_state(state)
  rest = _take(source, 5)
  _same({k: np.concatenate([first[k], rest[k]]) for k in first}, whole)
  source.close()


def test_going_back_in_a_stream_that_has_begun():
  source = _source()
  _take(source, 3)
  state = source.get_state()
  rest = _take(source, 5)
  source.set_state(state)
  _same(_take(source, 5), rest)


def test_shards_are_the_rows_of_one_batch():
  whole = _take(_source(batch_size=6), 4)
  parts = [
      _take(_source(batch_size=2, shard=(index, 3)), 4) for index in range(3)
  ]
  _same({k: np.concatenate([p[k] for p in parts], 1) for k in whole}, whole)


def test_batches_may_have_one_row():
  whole = _take(_source(batch_size=6), 1)
  ones = _take(_source(batch_size=1), 6)
  _same(ones, {k: x.reshape(6, 1, *x.shape[2:]) for k, x in whole.items()})


def test_nothing_to_draw_is_an_error():
  with pytest.raises(config.ConfigError, match='No example'):
    _source(visits=(0, 0))


def test_buckets_hold_everything_once():
  lengths = np.random.default_rng(0).integers(0, 50, 100)
  seen = []
  for bound, size, members in pipeline.buckets(lengths, (8, 20, 50), (7, 3, 2)):
    assert size == {8: 7, 20: 3, 50: 2}[bound]
    assert 0 < len(members) <= size and (lengths[members] <= bound).all()
    seen += members.tolist()
  assert sorted(seen) == list(range(100))
  with pytest.raises(ValueError, match='longest bucket'):
    list(pipeline.buckets([51], (8, 50), (1, 1)))


def _children(pid):
  """Process ids below `pid`."""
  found = []
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = stat.read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):  # It has just ended.
      continue
    if int(fields[1]) == pid:
      child = int(stat.parent.name)
      found += [child, *_children(child)]
  return found


def _alive(pid):
  status = pathlib.Path(f'/proc/{pid}/stat')
  if not status.exists():
    return False
  return status.read_text().rpartition(')')[2].split()[0] != 'Z'


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGTERM'])
def test_workers_and_shared_memory_end_with_the_parent(tmp_path, name):
  script = tmp_path / 'reader.py'
  script.write_text(textwrap.dedent("""
      import numpy as np
      from audiolm_jax.data import pipeline

      def draw(index, rng):
        return {'x': np.zeros((100000,), np.float32)}

      if __name__ == '__main__':
        source = pipeline.CropSource(
            draw, [1] * 50, batch_size=4, seed=0, workers=2)
        print(len(source.next(None)), flush=True)
        while True:
          source.next(None)
      """))
  with subprocess.Popen(
      [sys.executable, script],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
  ) as parent:
    assert parent.stdout.readline().strip() == b'2'
    workers = _children(parent.pid)
    assert len(workers) >= 2
    shared = set().union(*map(_shared, [parent.pid, *workers]))
    assert shared  # Semaphores of the queues.
    parent.send_signal(getattr(signal, name))
    parent.wait()
  deadline = time.monotonic() + 10
  while any(map(_alive, workers)) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not any(map(_alive, workers))
  deadline = time.monotonic() + 10
  while any(map(os.path.exists, shared)) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not [path for path in shared if os.path.exists(path)]


def _shared(pid):
  """Files in /dev/shm that a process has mapped."""
  maps = pathlib.Path(f'/proc/{pid}/maps').read_text()
  return set(re.findall(r'/dev/shm/\S+', maps))


def test_buckets_are_doubled_up_to_the_longest():
  first = ((256, 8), (1024, 2))
  assert pipeline.doubled(first, 10) == ([256, 1024], [8, 2])
  assert pipeline.doubled(first, 1024) == ([256, 1024], [8, 2])
  assert pipeline.doubled(first, 1025) == ([256, 1024, 2048], [8, 2, 1])
  assert pipeline.doubled(((8, 64),), 20.0, 64) == ([8, 16, 32], [64] * 3)


def test_padded_lengths_are_few_and_near():
  assert [pipeline.padded(n, 32) for n in (0, 1, 32, 33, 48, 49, 97)] == [
      *(0, 32, 32, 48, 48, 64, 128)
  ]
  sizes = {pipeline.padded(n, 16) for n in range(17, 4000)}
  assert len(sizes) == 16
  for n in range(17, 4000):
    assert n <= pipeline.padded(n, 16) < 1.5 * n
