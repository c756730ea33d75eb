"""Benchmarks of speech and its language models, as people have them in folders.

ZeroSpeech 2021 (Nguyen et al. 2020; zerospeech.com, 'challenge_archive/2021'):

  phonetic/dev-clean.item   ABX: "file onset offset phone prev-phone next-phone
                            speaker" for each item; recordings in dev-clean/
  lexical/dev/gold.csv      sWUGGY: id, filename, voice, frequency, word, phones,
                            length, correct; recordings beside it
  syntactic/dev/gold.csv    sBLIMP: id, filename, voice, type, subtype,
                            transcription, correct; recordings beside it

SALMon (Maimon et al. 2024; github.com/slp-rl/salmon): a folder for each part,
such as speaker_consistency/, in which sample_7_0.wav is right and sample_7_1.wav
is not.
"""

from collections.abc import Callable, Mapping, Sequence
import csv
import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import Any


from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.evaluation import abx
from audiolm_jax.evaluation import base as evaluation_base

_SUFFIXES = ('.wav', '.flac')
_SAMPLE = 'sample_*_*.wav'
# Occurrences of a word in LibriSpeech below which it is in a band, as the
# scorer of the challenge draws and names them: 5 is in '6-20'.
_BANDS = ((1, 'oov'), (5, '1-5'), (20, '6-20'), (100, '21-100'))
_COLUMNS = {
    'swuggy': ('id', 'filename', 'voice', 'frequency', 'correct'),
    'sblimp': ('id', 'filename', 'voice', 'type', 'subtype', 'correct'),
}
_EXAMPLES = {'swuggy': 'lexical/dev', 'sblimp': 'syntactic/dev'}


class BenchmarkError(config.ConfigError):
  """A folder that is not the benchmark it is said to be; says what and where."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two recordings, of which a model should find one likelier.

  Attributes:
    item: what it is a case of: pairs of one item, such as those of the voices
      that say it, are averaged first.
    metrics: the names of the means that the item counts in.
    right: the recording that should be likelier.
    wrong: the other one.
  """

  item: str
  metrics: tuple[str, ...]
  right: pathlib.Path
  wrong: pathlib.Path


class Recordings:
  """The .wav and .flac files in a folder and beneath it, by name."""

  def __init__(self, folder: str | os.PathLike):
    """Reads nothing yet.

    Raises:
      BenchmarkError: if there is no such folder.
    """
    self._folder = pathlib.Path(folder)
    if not self._folder.is_dir():
      raise BenchmarkError(f'{folder} is no folder of recordings.')

  def __getitem__(self, name: str) -> pathlib.Path:
    """The recording of a name without suffix.

    Raises:
      BenchmarkError: if there is none, or there are two.
    """
    for suffix in _SUFFIXES:
      path = self._folder / f'{name}{suffix}'
      # Of names that no file can have, too.
      if os.path.isfile(path):
        return path
    found = self._beneath.get(name, ())
    if len(found) != 1:
      what = f'has two: {found[0]} and {found[1]}' if found else 'has no'
      raise BenchmarkError(f'{self._folder} {what} {name}.wav or .flac.')
    return found[0]

  @functools.cached_property
  def _beneath(self) -> dict[str, list[pathlib.Path]]:
    """Those in folders of the folder, as in LibriSpeech's own."""
    paths: dict[str, list[pathlib.Path]] = {}
    for path in sorted(self._folder.rglob('*')):
      if path.suffix in _SUFFIXES:
        paths.setdefault(path.stem, []).append(path)
    return paths


def read(path: pathlib.Path) -> tuple[Any, int]:
  """Audio [T, C] and its rate in Hz.

  Raises:
    BenchmarkError: naming a file that can't be read.
  """
  try:
    return files.read(path, strict=True)
  except files.AudioFileError as error:
    raise BenchmarkError(str(error)) from error


def items(path: str | os.PathLike) -> list[abx.Item]:
  """The triples' parts of an .item file; its first line is a header.

  Raises:
    BenchmarkError: naming a line that can't be read.
  """
  found = []
  try:
    lines = pathlib.Path(path).read_text('utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise BenchmarkError(f'{path} can not be read: {error}') from error
  for number, line in enumerate(lines[1:], 2):
    fields = line.split()
    if not fields:
      continue
    try:
      file, onset, offset, phone, before, after, speaker = fields
      span = float(onset), float(offset)
      if not 0 <= span[0] <= span[1] < math.inf:
        raise ValueError(f'from {onset} to {offset}')
    except ValueError as error:
      raise BenchmarkError(
          f'{path}: line {number}: {line!r} is not "file onset offset phone'
          f' prev-phone next-phone speaker" with times in seconds ({error})'
      ) from error
    found.append(abx.Item(file, *span, phone, (before, after), speaker))
  if not found:
    raise BenchmarkError(f'{path} has no item')
  return found


def swuggy(folder: str | os.PathLike) -> list[Pair]:
  """Words and non-words of a folder such as lexical/dev, a pair for each voice.

  An item counts in 'swuggy'; in 'swuggy_in_vocabulary' if the word occurs in
  LibriSpeech; and in its band, 'swuggy_frequency_oov', '..._1-5', '..._6-20',
  '..._21-100' or '..._>100'. Where gold.csv gives no frequency of a word, it
  counts in the first only.

  Raises:
    BenchmarkError: if it is no such folder; says what is wrong with which file.
  """

  def described(row):
    return row['id'], ('swuggy', *_bands(row['frequency']))

  return _of_gold('swuggy', folder, described)


def _bands(frequency: str) -> tuple[str, ...]:
  """The metrics of a word's number of occurrences."""
  if not frequency.strip():
    return ()
  count = float(frequency)
  if not count >= 0:
    raise ValueError(f'frequency = {frequency!r}')
  band = next((name for end, name in _BANDS if count < end), '>100')
  known = ('swuggy_in_vocabulary',) if count else ()
  return (*known, f'swuggy_frequency_{band}')


def sblimp(folder: str | os.PathLike) -> list[Pair]:
  """Right and wrong sentences of a folder such as syntactic/dev, by voice.

  An item, of a type and subtype, counts in 'sblimp' and 'sblimp_TYPE'.

  Raises:
    BenchmarkError: if it is no such folder; says what is wrong with which file.
  """

  def described(row):
    item = f'{row["type"]}/{row["subtype"]}/{row["id"]}'
    return item, ('sblimp', f'sblimp_{row["type"]}')

  return _of_gold('sblimp', folder, described)


def _of_gold(benchmark, folder, described) -> list[Pair]:
  """The pairs of a gold.csv: one right and one wrong file an item and voice."""
  folder = pathlib.Path(folder)
  path, recordings = folder / 'gold.csv', Recordings(folder)
  sides: dict[tuple[str, str], dict[str, Any]] = {}
  for number, row in _rows(benchmark, path):
    where = f'{path}: line {number}'
    correct = row['correct']
    if correct not in ('0', '1'):
      raise BenchmarkError(f'{where}: correct = {correct!r}, not 0 or 1.')
    try:
      item, metrics = described(row)
    except ValueError as error:
      raise BenchmarkError(f'{where}: {error} is no number >= 0.') from error
    pair = sides.setdefault((item, row['voice']), {})
    if correct in pair:
      raise BenchmarkError(
          f'{where}: {item!r} has two files of voice {row["voice"]!r} with'
          f' correct = {correct}.'
      )
    pair[correct] = recordings[row['filename']]
    if correct == '1':
      pair['metrics'] = metrics
  if not sides:
    raise BenchmarkError(f'{path} has no pair.')
  for (item, voice), pair in sides.items():
    for correct in {'0', '1'} - pair.keys():
      raise BenchmarkError(
          f'{path}: {item!r} of voice {voice!r} has no row with correct ='
          f' {correct}.'
      )
  return [
      Pair(item, pair['metrics'], pair['1'], pair['0'])
      for (item, _), pair in sides.items()
  ]


def _rows(benchmark, path) -> list[tuple[int, dict[str, str]]]:
  """(number of its line, values by column) of each row of a gold.csv."""
  if not path.is_file():
    raise BenchmarkError(f'{path.parent} has no gold.csv. {_hint(path.parent)}')
  wanted = _COLUMNS[benchmark]
  try:
    # Some programs begin such files with a mark of their encoding.
    with path.open(newline='', encoding='utf-8-sig') as file:
      reader = csv.DictReader(file, strict=True)
      header = reader.fieldnames or ()
      rows = [(reader.line_num, row) for row in reader]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise BenchmarkError(f'{path} can not be read: {error}.') from error
  lacking = [name for name in wanted if name not in header]
  if lacking:
    other = next(
        (k for k, v in _COLUMNS.items() if set(v) <= set(header)), None
    )
    hint = f' It is one of {other}.' if other else ''
    raise BenchmarkError(
        f'{path} is no gold.csv of {benchmark}: its header, {list(header)}, has'
        f' no {lacking}.{hint}'
    )
  for number, row in rows:
    # What is too much has the key None, what is missing the value None.
    if None in row or None in row.values():
      raise BenchmarkError(
          f'{path}: line {number}: expected {len(header)} fields, as its header'
          ' has.'
      )
  return rows


def _hint(folder) -> str:
  """What a folder without gold.csv may have been meant to be."""
  if any(folder.glob(f'*/{_SAMPLE}')) or any(folder.glob(_SAMPLE)):
    return 'It is one of SALMon.'
  below = sorted({*folder.glob('*/gold.csv'), *folder.glob('*/*/gold.csv')})
  if below:
    return f'Did you mean {below[0].parent}?'
  return (
      f'Give a folder such as {" or ".join(_EXAMPLES.values())} of ZeroSpeech'
      ' 2021, with the recordings beside the gold.csv.'
  )


def salmon(folder: str | os.PathLike) -> list[Pair]:
  """All parts of SALMon, or one; an item counts in its part, 'salmon_PART'.

  Raises:
    BenchmarkError: if it is no such folder, or a sample has not both options.
  """
  folder = pathlib.Path(folder)
  parts = [folder] if any(folder.glob(_SAMPLE)) else sorted(folder.glob('*/'))
  pairs = [pair for part in parts for pair in _of_part(part)]
  if not pairs:
    hint = ' It is one of ZeroSpeech.' if any(folder.rglob('gold.csv')) else ''
    raise BenchmarkError(
        f'{folder} has no folders, such as speaker_consistency/, with'
        f' sample_INDEX_0.wav and sample_INDEX_1.wav.{hint}'
    )
  return pairs


def _of_part(part) -> list[Pair]:
  """The pairs of one of SALMon's folders, in the order of their numbers."""
  options: dict[int, dict[int, pathlib.Path]] = {}
  for path in part.glob(_SAMPLE):
    match = re.fullmatch(r'sample_(\d+)_(\d+)', path.stem)
    if match is None:
      raise BenchmarkError(f'{path}: expected sample_INDEX_OPTION.wav.')
    options.setdefault(int(match[1]), {})[int(match[2])] = path
  pairs = []
  # The folder '.' has a name, too.
  name = part.resolve().name
  for index, found in sorted(options.items()):
    if set(found) != {0, 1}:
      raise BenchmarkError(
          f'{part}: sample {index} has the options {sorted(found)}, not 0 and 1.'
      )
    metrics = (f'salmon_{name}',)
    pairs.append(Pair(f'{name}/{index}', metrics, found[0], found[1]))
  return pairs


PAIRS: Mapping[str, Callable[[str | os.PathLike], list[Pair]]] = {
    'salmon': salmon,
    'sblimp': sblimp,
    'swuggy': swuggy,
}


def some(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
  """The pairs of at most so many items, evenly spaced; None for all."""
  names = list(dict.fromkeys(pair.item for pair in pairs))
  kept = {names[i] for i in evaluation_base.spaced(len(names), limit)}
  return [pair for pair in pairs if pair.item in kept]
