"""The clips of a split of a token cache, as ArrayRecord parts of `PART` each."""

from collections.abc import Sequence
import os
import pathlib
import zlib

from array_record.python import array_record_data_source
from array_record.python import array_record_module

from audiolm_jax.data import cache_header
from audiolm_jax.tokenizers import encoding

PART = 256


def path_of(directory: pathlib.Path, split: str, part: int) -> pathlib.Path:
  """The file of a part."""
  return directory / f'{split}-{part:05d}.array_record'


def write(path: pathlib.Path, records: Sequence[bytes]) -> None:
  """Writes a part; it appears whole or not at all.

  Raises:
    TokensError: if it can't be written.
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
    raise encoding.TokensError(f'{path} can not be written: {error}') from error
  finally:
    temporary.unlink(missing_ok=True)


class Records:
  """The clips of a split: `records[i]` is clip i.

  Args:
    directory: of the cache.
    split: which.
    form: of the cache.
    checksums: of the clips' bytes; None to take what is there.

  Raises:
    TokensError: for a part that is missing, damaged or of another length.
  """

  def __init__(
      self,
      directory: pathlib.Path,
      split: str,
      form: cache_header.Identity,
      checksums: Sequence[int] | None = None,
  ):
    self._form = form
    self._checksums = checksums
    clips = form.clips[split] if checksums is None else len(checksums)
    starts = range(0, clips, PART)
    self._parts = [path_of(directory, split, i) for i in range(len(starts))]
    for path in self._parts:
      if not path.exists():
        raise encoding.TokensError(
            f'{path} is missing. To make it again, run the `tokenize_audio.py'
            ' corpus` of this cache once more.'
        )
    self._source = _open(self._parts) if clips else []
    if len(self._source) != clips:
      for path, start in zip(self._parts, starts, strict=True):
        present, wanted = len(_open([path])), min(PART, clips - start)
        if present != wanted:
          raise _damaged(path, f'it has {present} clips instead of {wanted}')

  def __getitem__(self, index: int) -> encoding.Example:
    try:
      data = self._source[index]
      if self._checksums and zlib.crc32(data) != self._checksums[index]:
        raise ValueError('it has another checksum than in header.json')
      return self._form.unpack_clip(data)
    except (RuntimeError, ValueError) as error:
      raise self.error(index, str(error)) from error

  def checksum(self, index: int) -> int:
    """Of the bytes of a clip as they are."""
    return zlib.crc32(self._source[index])

  def error(self, index: int, fault: str) -> encoding.TokensError:
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


def _damaged(part: pathlib.Path, fault: str) -> encoding.TokensError:
  return encoding.TokensError(
      f'{part} is damaged ({fault}). {cache_header.AGAIN}'
  )
