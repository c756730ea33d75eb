"""The clips of a split of a token cache, as ArrayRecord parts of `PART` each."""

from collections.abc import Sequence
import os
import pathlib

from array_record.python import array_record_data_source
from array_record.python import array_record_module

from audiolm_jax.data import cache_header

PART = 256


def path_of(directory: pathlib.Path, split: str, part: int) -> pathlib.Path:
  """The file of a part."""
  return directory / f'{split}-{part:05d}.array_record'


def write(path: pathlib.Path, records: Sequence[bytes]) -> None:
  """Writes a part; it appears whole or not at all.

  Raises:
    CacheError: if it can't be written.
  """
  temporary = path.with_suffix(f'.{os.getpid()}.tmp')
  try:
    writer = array_record_module.ArrayRecordWriter(
        str(temporary), 'group_size:1'
    )
    for record in records:
      writer.write(record)
    writer.close()
    temporary.replace(path)
  except (OSError, RuntimeError) as error:
    raise cache_header.CacheError(
        f'{path} can not be written: {error}'
    ) from error
  finally:
    temporary.unlink(missing_ok=True)


class Records:
  """The records of a split: `records[i]` is the bytes of clip i.

  Args:
    directory: of the cache.
    split: which.
    clips: how many it has.

  Raises:
    CacheError: for a part that is missing, damaged or of another length.
  """

  def __init__(self, directory: pathlib.Path, split: str, clips: int):
    starts = range(0, clips, PART)
    self._parts = [path_of(directory, split, i) for i in range(len(starts))]
    for path in self._parts:
      if not path.exists():
        raise cache_header.CacheError(
            f'{path} is missing. To make it again, run the `tokenize_audio.py'
            ' corpus` of this cache once more.'
        )
    self._source = _open(self._parts) if clips else []
    if len(self._source) != clips:
      for path, start in zip(self._parts, starts, strict=True):
        present, wanted = len(_open([path])), min(PART, clips - start)
        if present != wanted:
          raise _damaged(path, f'it has {present} clips instead of {wanted}')

  def __getitem__(self, index: int) -> bytes:
    try:
      return self._source[index]
    except (RuntimeError, ValueError) as error:
      raise self.error(index, str(error)) from error

  def error(self, index: int, fault: str) -> cache_header.CacheError:
    """An error about a clip, which names its part."""
    return _damaged(self._parts[index // PART], f'clip {index}: {fault}')


def _open(parts):
  try:
    return array_record_data_source.ArrayRecordDataSource(
        [str(path) for path in parts]
    )
  except (RuntimeError, ValueError, OSError) as error:
    if len(parts) > 1:
      for path in parts:
        _open([path])
    raise _damaged(parts[0], str(error)) from error


def _damaged(part: pathlib.Path, fault: str) -> cache_header.CacheError:
  return cache_header.CacheError(
      f'{part} is damaged ({fault}). {cache_header.AGAIN}'
  )
