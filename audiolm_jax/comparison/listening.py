"""What there is to hear of arms: items on disk, and a page that compares them."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib

from jaxtyping import Float
import numpy as np

from audiolm_jax.audio import files
from audiolm_jax.audio import resample
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.training import writers

_INDEX = 'items.json'
# 14 MB of a page: sounds and pictures at 16 kHz take 45 kB a second.
MOST_SECONDS = 300.0


class ListeningError(ValueError):
  """Items that can't be read, or compared."""


@dataclasses.dataclass(frozen=True)
class Item:
  """One sound of an arm.

  Attributes:
    name: what it is of (a prompt's id): the same in all arms.
    audio: one channel, in [-1, 1].
    sample_rate: in Hz.
    note: how it was made.
    prompt_seconds: where a continuation begins; 0 for what has no prompt.
  """

  name: str
  audio: Float[np.ndarray, 'T']
  sample_rate: int
  note: str = ''
  prompt_seconds: float = 0.0


def write(directory: str | os.PathLike, items: Sequence[Item]) -> None:
  """Writes items as 16-bit FLAC files and an index of them.

  Raises:
    ListeningError: for two items of one name.
  """
  names = [item.name for item in items]
  if len(set(names)) != len(names):
    raise ListeningError(f'two items have one name: {names}')
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  index = []
  for number, item in enumerate(items):
    file = f'{number}.flac'
    files.write(directory / file, item.audio, item.sample_rate)
    facts = {k: v for k, v in vars(item).items() if k != 'audio'}
    index.append({'file': file, **facts})
  # Last: what it names is there.
  writers.write_atomically(directory / _INDEX, json.dumps(index, indent=1))


def read(directory: str | os.PathLike) -> list[Item]:
  """The items of a directory.

  Raises:
    ListeningError: for a directory that `write` did not write, or a damaged one.
  """
  directory = pathlib.Path(directory)
  items = []
  try:
    for facts in json.loads((directory / _INDEX).read_bytes()):
      audio, _ = files.read(directory / facts.pop('file'), strict=True)
      items.append(Item(audio=audio[:, 0], **facts))
  except (
      files.AudioFileError,
      OSError,
      KeyError,
      TypeError,
      ValueError,
  ) as error:
    raise ListeningError(
        f'{directory} has no items to hear: {error}'
    ) from error
  return items


def add_side_by_side(
    page: report_lib.Report,
    section: str,
    arms: Mapping[str, Sequence[Item]],
    question: str,
    most_seconds: float = MOST_SECONDS,
) -> None:
  """Adds each item from all arms that have it, for a blind test.

  Arms are made equally loud within an item, at the highest of their rates.
  Items come in the order of the first arm. Those that would make the page long
  are left out from the end, and the page says so.

  Args:
    page: where to.
    section: of the page.
    arms: arm -> what there is to hear of it.
    question: of the blind test.
    most_seconds: of audio on the page; one item is always there.
  """
  found: dict[str, dict[str, Item]] = {}
  for arm, items in arms.items():
    for item in items:
      found.setdefault(item.name, {})[arm] = item
  total, left_out = 0.0, []
  for name, by_arm in found.items():
    seconds = sum(len(i.audio) / i.sample_rate for i in by_arm.values())
    if total and total + seconds > most_seconds:
      left_out.append(name)
      continue
    total += seconds
    _add(page, section, name, by_arm, question)
  if left_out:
    page.add_text(
        section,
        f'Left out, to keep the page under {most_seconds:g} s of audio: '
        + ', '.join(left_out)
        + '.',
    )


def _add(page, section, name, by_arm, question):
  rate = max(item.sample_rate for item in by_arm.values())
  clips = {
      arm: resample.resample(item.audio[:, None], item.sample_rate, rate)[:, 0]
      for arm, item in by_arm.items()
  }
  first = next(iter(by_arm.values()))
  facts = {'note': first.note, 'prompt_seconds': first.prompt_seconds}
  if len(clips) == 1:
    page.add_audio(section, name, clips, rate, **facts)
  else:
    page.add_comparison(section, name, clips, rate, question=question, **facts)
