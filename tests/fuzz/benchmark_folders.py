"""Damaged benchmarks: gold.csv of ZeroSpeech, .item files, samples of SALMon."""

from collections.abc import Callable, Iterator
import os
import pathlib
import shutil

import numpy as np

from audiolm_jax.evaluation import benchmarks
from tests.evaluation import benchmark_folders
from tests.fuzz import corpora_and_caches

ERRORS = (benchmarks.BenchmarkError,)
Case = corpora_and_caches.Case
_WORDS = [('cat', 0), ('dog', 7), ('bird', 400)]
_ITEMS = """#file onset offset #phone prev-phone next-phone speaker
84-1 0.10 0.21 a x y 84
84-1 0.21 0.31 b x y 84
116-2 0.5 0.75 a x y 116
"""


def _replaced(old: str, new: str):
  def lie(path, rng):
    del rng
    text = path.read_text('utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), 'utf-8')
    return True

  return lie


def _damaged(path, rng):
  path.write_bytes(corpora_and_caches.damaged(path.read_bytes(), rng))


def _pipe(path, rng):
  del rng
  path.unlink()
  os.mkfifo(path)
  return True


_GOLD_LIES = (
    _replaced('ncat_A', 'x' * 300),
    _replaced('ncat_A', 'x\0'),
    _replaced('A,0,cat', 'A,nan,cat'),
    _replaced('A,0,cat', 'A,1e999x,cat'),
    _replaced('0,wcat_A', '0,ncat_A,0'),
    _replaced('correct', 'id'),
    _pipe,
)
_ITEM_LIES = (
    _replaced('0.10', 'nan'),
    _replaced('0.31', 'inf'),
    _replaced('0.10', '-0.1'),
    _replaced('0.5', '0.8'),
    _replaced(' 116', ''),
    _replaced('84-1 0.1', '84-1 a 0.1'),
)


def _make(
    whole: pathlib.Path,
    name: str,
    lies,
    directory: pathlib.Path,
    rng: np.random.Generator,
    count: int,
) -> Iterator[Case]:
  """Copies of a folder, in each of which one file says something wrong."""
  yield 'whole', whole, False
  for number in range(count - 1):
    path = shutil.copytree(whole, directory / f'{whole.name}{number:04d}')
    # Every second one is noise.
    lie = lies[number // 2 % len(lies)] if number % 2 else _damaged
    yield path.name, path, lie(path / name, rng)


def _make_gold(directory, rng, count):
  whole = benchmark_folders.swuggy(directory / 'gold', _WORDS)
  yield from _make(whole, 'gold.csv', _GOLD_LIES, directory, rng, count)


def _make_items(directory, rng, count):
  whole = directory / 'items'
  whole.mkdir()
  (whole / 'dev.item').write_text(_ITEMS)
  yield from _make(whole, 'dev.item', _ITEM_LIES, directory, rng, count)


def _lost(folder, rng):
  del rng
  (folder / 'sample_1_1.wav').unlink()
  return True


def _renamed(folder, rng):
  del rng
  (folder / 'sample_1_1.wav').rename(folder / 'sample_1_x.wav')
  return True


def _third(folder, rng):
  del rng
  shutil.copy(folder / 'sample_0_0.wav', folder / 'sample_0_2.wav')
  return True


def _cut(folder, rng):
  path = folder / 'sample_1_0.wav'
  path.write_bytes(path.read_bytes()[: int(rng.integers(0, 100))])
  return True


def _make_samples(directory, rng, count):
  whole = benchmark_folders.salmon(directory, {'part': 2}) / 'part'
  lies: tuple[Callable, ...] = (_lost, _renamed, _third, _cut)
  yield 'whole', whole, False
  for number in range(count - 1):
    path = shutil.copytree(whole, directory / f'samples{number:04d}')
    yield path.name, path, lies[number % len(lies)](path, rng)


def _read_gold(path: pathlib.Path) -> None:
  """Reads sWUGGY's folder as an evaluator does."""
  pairs = benchmarks.swuggy(path)
  for pair in pairs:
    assert pair.right.is_file() and pair.wrong.is_file()
    assert pair.metrics[0] == 'swuggy'


def _read_items(path: pathlib.Path) -> None:
  """Reads an .item file, whose spans must be spans."""
  for item in benchmarks.items(path / 'dev.item'):
    assert 0 <= item.onset <= item.offset < float('inf')


def _read_samples(path: pathlib.Path) -> None:
  """Reads a part of SALMon, recordings too."""
  pairs = benchmarks.salmon(path)
  assert len(pairs) == 2
  for pair in pairs:
    for side in (pair.right, pair.wrong):
      audio, rate = benchmarks.read(side)
      assert rate == 16000 and audio.shape == (800, 1)


FORMATS = {
    'gold': (_make_gold, _read_gold),
    'items': (_make_items, _read_items),
    'samples': (_make_samples, _read_samples),
}
