"""ABX sets as people have them in folders.

ZeroSpeech 2021 (zerospeech.com, 'challenge_archive/2021'): phonetic/NAME.item has
a line "file onset offset phone prev-phone next-phone speaker" for each item, the
recordings lie in phonetic/NAME/.
"""

import os
import pathlib
from typing import Any

from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.evaluation import abx

_SUFFIXES = ('.wav', '.flac')


class BenchmarkError(config.ConfigError):
  """A folder that is not the benchmark it is said to be; says what and where."""


def audio(folder: pathlib.Path, name: str) -> pathlib.Path:
  """The recording of a name without suffix, in a folder or beneath it.

  Raises:
    BenchmarkError: if there is none.
  """
  for suffix in _SUFFIXES:
    path = folder / f'{name}{suffix}'
    if path.is_file():
      return path
  # As in LibriSpeech's own folders.
  for path in sorted(folder.rglob(f'{name}.*')):
    if path.suffix in _SUFFIXES:
      return path
  raise BenchmarkError(f'{folder} has no {name}.wav or .flac')


def items(path: str | os.PathLike) -> list[abx.Item]:
  """The triples' parts of an .item file; its first line is a header.

  Raises:
    BenchmarkError: naming a line that can't be read.
  """
  found = []
  try:
    lines = pathlib.Path(path).read_text('utf-8').splitlines()
  except OSError as error:
    raise BenchmarkError(f'{path} can not be read: {error}') from error
  for number, line in enumerate(lines[1:], 2):
    fields = line.split()
    if not fields:
      continue
    try:
      file, onset, offset, phone, before, after, speaker = fields
      span = float(onset), float(offset)
    except ValueError as error:
      raise BenchmarkError(
          f'{path}: line {number}: {line!r} is not "file onset offset phone'
          ' prev-phone next-phone speaker"'
      ) from error
    found.append(abx.Item(file, *span, phone, (before, after), speaker))
  if not found:
    raise BenchmarkError(f'{path} has no item')
  return found


def read(path: pathlib.Path) -> tuple[Any, int]:
  """Audio [T, C] and its rate in Hz.

  Raises:
    BenchmarkError: naming a file that can't be read.
  """
  try:
    return files.read(path, strict=True)
  except files.AudioFileError as error:
    raise BenchmarkError(str(error)) from error
