"""Folders of token files with one thing wrong in each, read as training does."""

from collections.abc import Iterator
import os
import pathlib
import shutil

import numpy as np

from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import token_files
from tests.data import made_caches
from tests.fuzz import corpora_and_caches

ERRORS = (encoding.TokensError,)


def _put(path: pathlib.Path, codes: np.ndarray, **changes) -> None:
  fields = {'fingerprint': 'abc', 'codebooks': codes.shape[1], **changes}
  header = token_files.Header(
      made_caches.spec((corpora_and_caches._V,) * corpora_and_caches._K),
      **fields,
  )
  with token_files.create(path, header) as writer:
    writer.write(encoding.Block(320 * len(codes), codes[None]))


def _another(**changes):
  """A file that does not belong with the others."""

  def lie(folder, rng):
    del rng
    slots = changes.get('codebooks', corpora_and_caches._K)
    _put(
        folder / 'z.tokens',
        corpora_and_caches._example('train', 0).codes[:, :slots],
        **changes,
    )
    return True

  return lie


def _damaged_file(folder, rng):
  return corpora_and_caches._flip('x3.tokens', True)(folder, rng)


def _pipe(folder, rng):
  del rng
  os.mkfifo(folder / 'z.tokens')
  return True


_FOLDER_LIES = (
    _another(fingerprint='other'),
    _another(codebooks=1),
    _another(aligned=True),
    _another(factors={'id': 'x1'}),
    _pipe,
    corpora_and_caches._file('x2.tokens', b''),
    corpora_and_caches._file('x2.tokens', b'\x9fTOKENS\n'),
    *([_damaged_file] * 5),
)


def make(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Iterator[corpora_and_caches.Case]:
  """Folders of six token files with one thing wrong in each."""
  whole = directory / 'whole'
  for i in range(6):
    _put(whole / f'x{i}.tokens', corpora_and_caches._example('train', i).codes)
  yield 'whole', whole, False
  for number in range(count - 1):
    path = shutil.copytree(whole, directory / f'tokens{number:04d}')
    lie = _FOLDER_LIES[number % len(_FOLDER_LIES)]
    yield path.name, path, lie(path, rng)


def read(path: pathlib.Path) -> None:
  """Reads a folder of token files as training does."""
  clips = {}
  for split in token_cache.read_header(path).splits:
    cache = token_cache.TokenCache(path, split)
    source = token_crops.TokenCrops(cache=str(path), split=split, frames=9)
    source.open(batch_size=4, seed=0)
    clips |= {cache[i].factors['id']: cache[i] for i in range(len(cache))}
  assert len(clips) == 6
  for i in range(6):
    codes = corpora_and_caches._example('train', i).codes
    np.testing.assert_array_equal(clips[f'x{i}'].codes, codes)


FORMATS = {'token_folder': (make, read)}
