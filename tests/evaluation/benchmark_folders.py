"""Folders of benchmarks as people have them, with noise for recordings."""

import csv
import pathlib

import numpy as np

from audiolm_jax.audio import files

SWUGGY = (
    'id',
    'filename',
    'voice',
    'frequency',
    'word',
    'phones',
    'length',
    'correct',
)
SBLIMP = (
    'id',
    'filename',
    'voice',
    'type',
    'subtype',
    'transcription',
    'correct',
)


def record(
    path: pathlib.Path, seed: int, seconds: float = 0.05, rate: int = 16000
) -> None:
  """Noise, of each seed another."""
  rng = np.random.default_rng(seed)
  audio = 0.1 * rng.standard_normal((round(seconds * rate), 1))
  files.write(path, audio.astype(np.float32), rate)


def gold(folder: pathlib.Path, columns, rows) -> pathlib.Path:
  """Writes a gold.csv and a recording for each of its rows."""
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / 'gold.csv').open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)
  for seed, row in enumerate(rows):
    # Every second one is of another rate and length.
    rate = (16000, 22050)[seed % 2]
    name = row[columns.index('filename')]
    record(folder / f'{name}.wav', seed, 0.04 + 0.01 * (seed % 3), rate)
  return folder


def swuggy(folder: pathlib.Path, words, voices=('A', 'B')) -> pathlib.Path:
  """A word and a non-word of each of [(word, its frequency)], in each voice.

  Recordings of words are called 'w', those of non-words 'n', then WORD_VOICE.
  """
  rows = []
  for number, (word, frequency) in enumerate(words):
    for voice in voices:
      length = len(word)
      name, phones = f'w{word}_{voice}', ' '.join(word)
      rows.append((number, name, voice, frequency, word, phones, length, 1))
      name = f'n{word}_{voice}'
      rows.append((number, name, voice, '', '', f'{phones} x', length, 0))
  return gold(folder, SWUGGY, rows)


def sblimp(folder: pathlib.Path, items, voices=('A',)) -> pathlib.Path:
  """A right and a wrong sentence of each of [(type, subtype)], by voice.

  Recordings are called 'r' or 'w', then NUMBER_VOICE.
  """
  rows = []
  for number, (kind, subtype) in enumerate(items):
    for voice in voices:
      for correct, side in ((1, 'r'), (0, 'w')):
        name = f'{side}{number}_{voice}'
        text = f'the dog, it {side}s'
        rows.append((number, name, voice, kind, subtype, text, correct))
  return gold(folder, SBLIMP, rows)


def salmon(folder: pathlib.Path, parts) -> pathlib.Path:
  """Samples of each of {part: how many}."""
  for part, count in parts.items():
    for index in range(count):
      for option in (0, 1):
        path = folder / part / f'sample_{index}_{option}.wav'
        record(path, 10 * index + option)
  return folder
