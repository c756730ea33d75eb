"""Benchmarks of spoken language models, as people have them in folders.

ZeroSpeech 2021 (Nguyen et al. 2020; zerospeech.com, 'challenge_archive/2021'):

    lexical/dev/gold.csv      sWUGGY: id,filename,voice,frequency,word,phones,
                              length,correct; the audio lies beside it
    syntactic/dev/gold.csv    sBLIMP: id,filename,voice,type,subtype,
                              transcription,correct
    phonetic/dev-clean.item   ABX: file onset offset phone prev next speaker;
                              the audio lies in dev-clean/

SALMon (Maimon et al. 2024; github.com/slp-rl/salmon): a folder for each part,
such as speaker_consistency/, with sample_INDEX_0.wav, which is right, and
sample_INDEX_1.wav, which is not.
"""

import collections
import csv
import dataclasses
import os
import pathlib
import re
from typing import Any

from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.evaluation import abx

_SUFFIXES = ('.wav', '.flac')
# Occurrences of a word in LibriSpeech -> the band that ZeroSpeech reports.
_BANDS = ((1, 'oov'), (6, '1-5'), (21, '6-20'), (101, '21-100'))


class BenchmarkError(config.ConfigError):
  """A folder that is not the benchmark it is said to be; says what and where."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two recordings, of which a model should find the first more likely.

  Attributes:
    item: what it counts as: pairs of one item, such as those of the voices that
      say it, are averaged.
    groups: what it is a case of, such as 'type/agreement'.
    right: file.
    wrong: file.
  """

  item: str
  groups: tuple[str, ...]
  right: pathlib.Path
  wrong: pathlib.Path


def swuggy(folder: str | os.PathLike) -> list[Pair]:
  """Words and non-words of a folder such as lexical/dev.

  Groups are the bands of the words' frequency.

  Raises:
    BenchmarkError: if it is none.
  """
  return _of_gold(
      folder,
      ('id', 'filename', 'voice', 'frequency', 'correct'),
      lambda row: row['id'],
      lambda row: (f'frequency/{_band(row["frequency"])}',),
  )


def sblimp(folder: str | os.PathLike) -> list[Pair]:
  """Sentences and ungrammatical ones of a folder such as syntactic/dev.

  Groups are the types of errors.

  Raises:
    BenchmarkError: if it is none.
  """
  return _of_gold(
      folder,
      ('id', 'filename', 'voice', 'type', 'subtype', 'correct'),
      lambda row: f'{row["type"]}/{row["subtype"]}/{row["id"]}',
      lambda row: (f'type/{row["type"]}',),
  )


def _of_gold(folder, columns, item, groups) -> list[Pair]:
  """The pairs of a gold.csv: one right and one wrong file an item and voice."""
  folder = pathlib.Path(folder)
  path = folder / 'gold.csv'
  if not path.is_file():
    raise BenchmarkError(
        f'{folder} has no gold.csv: give a folder such as lexical/dev of'
        ' ZeroSpeech 2021, with the audio beside the csv (test sets have none)'
    )
  sides: dict[tuple[str, str], dict[str, Any]] = {}
  with path.open(newline='', encoding='utf-8') as file:
    rows = csv.DictReader(file)
    missing = set(columns) - set(rows.fieldnames or ())
    if missing:
      raise BenchmarkError(f'{path}: its header lacks {sorted(missing)}')
    for number, row in enumerate(rows, 2):
      if row['correct'] not in ('0', '1'):
        raise BenchmarkError(
            f'{path}: line {number}: correct = {row["correct"]!r}, not 0 or 1'
        )
      pair = sides.setdefault((item(row), row['voice']), {})
      if row['correct'] in pair:
        raise BenchmarkError(
            f'{path}: line {number}: {item(row)!r} has two files of voice'
            f' {row["voice"]!r} with correct = {row["correct"]}'
        )
      pair[row['correct']] = audio(folder, row['filename'])
      if row['correct'] == '1':
        pair['groups'] = groups(row)
  pairs = []
  for (name, voice), pair in sides.items():
    if not {'0', '1'} <= set(pair):
      raise BenchmarkError(
          f'{path}: {name!r} of voice {voice!r} has no'
          f' {"wrong" if "1" in pair else "right"} file'
      )
    pairs.append(Pair(name, pair['groups'], pair['1'], pair['0']))
  if not pairs:
    raise BenchmarkError(f'{path} has no pair')
  return pairs


def _band(frequency: str) -> str:
  """Of an occurrence count; non-words and unknown words are 'oov'."""
  count = int(float(frequency or 0))
  return next((name for end, name in _BANDS if count < end), '>100')


def salmon(folder: str | os.PathLike) -> list[Pair]:
  """All pairs of SALMon's folder, or of one part; groups are the parts.

  Raises:
    BenchmarkError: if it is none.
  """
  folder = pathlib.Path(folder)
  parts = sorted(p for p in folder.glob('*/') if any(p.glob('sample_*_*.wav')))
  if any(folder.glob('sample_*_*.wav')):
    parts = [folder]
  if not parts:
    raise BenchmarkError(
        f'{folder} has no folders with sample_INDEX_0.wav and sample_INDEX_1.wav'
    )
  pairs = []
  for part in parts:
    options = collections.defaultdict(dict)
    for path in part.glob('sample_*_*.wav'):
      match = re.fullmatch(r'sample_(\d+)_(\d+)', path.stem)
      if match is None:
        raise BenchmarkError(f'{path}: expected sample_INDEX_OPTION.wav')
      options[int(match[1])][int(match[2])] = path
    for index, found in sorted(options.items()):
      if set(found) != {0, 1}:
        raise BenchmarkError(
            f'{part}: sample {index} has the options {sorted(found)}, not 0 and 1'
        )
      name = f'{part.name}/{index}'
      pairs.append(Pair(name, (part.name,), found[0], found[1]))
  return pairs


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
