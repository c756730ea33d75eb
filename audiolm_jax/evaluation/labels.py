"""What is known of clips, as labelled examples of a representation.

A factor is of whole clips (speaker, noise, room), of stretches (words) or of
frames (phones, f0). Everything but speaker, language and text needs a corpus
whose clips store it, as speech_world's do.

To add one: a `Factor`, and a line in FACTORS.
"""

import abc
from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
from typing import Any

import numpy as np

from audiolm_jax.data.speech_world import channels
from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.evaluation import representations

# What a factor of clips is said to be where it is not.
_NONE = 'none'
# Hz at 0 cents: a low A.
_ZERO = 55.0


@dataclasses.dataclass(frozen=True)
class Examples:
  """Labelled examples of one clip.

  Attributes:
    x: [N, D] float32 vectors, or [N, K] codes.
    labels: N names, or numbers.
    types: N names of what an example is a case of: a control task gives each
      type one label at random.
  """

  x: np.ndarray
  labels: list[Any]
  types: list[str]


@dataclasses.dataclass(frozen=True)
class Factor(abc.ABC):
  """One kind of label.

  Attributes:
    hold_out: what a probe of it must not meet in training: 'speaker', 'text'.
    number: whether it is a number, not a class.
    cents: whether that number is a pitch.
  """

  hold_out: tuple[str, ...] = ('speaker', 'text')
  number: bool = False
  cents: bool = False

  @abc.abstractmethod
  def examples(
      self, frames: representations.Frames, known: Mapping[str, Any]
  ) -> Examples:
    """Of a clip; none where nothing is known of it, or it has no frame."""


def known(clip: Mapping[str, Any]) -> dict[str, Any]:
  """What a corpus knows of a clip: its names, and as 'world' parsed `factors`."""
  names = {k: v for k, v in clip.items() if isinstance(v, str)}
  return {**names, 'world': json.loads(names.pop('factors', '') or 'null')}


def group_of(known: Mapping[str, Any], name: str) -> str:
  """The value by which clips are kept together: of 'speaker', 'text' or another.

  Where a clip has none it is a group of its own.
  """
  value = _of_clip(name, known)
  return f'{name} {value}' if value not in (None, '') else known['id']


def _of_clip(name: str, known: Mapping[str, Any]) -> Any:
  """A value that holds for a whole clip; None where it is not known."""
  if name in known and name != 'world':
    return known[name] or None
  world = known['world']
  if world is None:
    return None
  speaker = world['speaker']
  if name == 'group' and 'group' in speaker:
    return speakers.GROUPS[speaker['group']]
  if name == 'speaker_f0' and 'f0' in speaker:
    return cents(speaker['f0'])
  # A clip that was stored before there was a codec went through none.
  channel = dataclasses.asdict(channels.Channel(**world['channel']))
  channel['mu_law'] = channel['bits']
  del channel['noise_seed']  # By that name goes the seed of the voice.
  if name in channel:
    return str(channel[name]) or _NONE
  value = world.get(name)
  return str(value) if isinstance(value, (str, int, float)) else None


def cents(hertz: Any) -> Any:
  """Pitch in cents above 55 Hz."""
  return 1200 * np.log2(np.asarray(hertz, float) / _ZERO)


def pool(frames: representations.Frames, kept: slice) -> np.ndarray:
  """A stretch as one vector.

  Of vectors their mean and standard deviation, one after the other; of codes
  how large a share of the frames has each, slot after slot.

  Args:
    frames: of the clip.
    kept: which frames, at least one.
  """
  values = frames.values[kept]
  if not frames.vocabularies:
    both = [values.mean(axis=0), values.std(axis=0)]
    return np.concatenate(both).astype(np.float32)
  counts = [
      np.bincount(values[:, k], minlength=size)
      for k, size in enumerate(frames.vocabularies)
  ]
  return (np.concatenate(counts) / len(values)).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfClip(Factor):
  """One label a clip, of all its frames pooled.

  Attributes:
    name: of the value. The types of its control task are the speakers.
  """

  name: str

  def examples(self, frames, known):
    value = _of_clip(self.name, known)
    if value is None or not len(frames.values):
      return Examples(np.zeros((0, 1), np.float32), [], [])
    x = pool(frames, slice(None))[None]
    return Examples(x, [value], [known.get('speaker') or known['id']])


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfWords(Factor):
  """One label a word, of its frames pooled; words without a frame have none.

  Attributes:
    read: what is known -> a label for each word, or None where they are not
      known. The types of its control task are the words.
  """

  read: Callable[[Mapping[str, Any]], list[str] | None]

  def examples(self, frames, known):
    world, rows, labels, types = known['world'], [], [], []
    said = None if world is None else self.read(world)
    if said is None:
      return Examples(np.zeros((0, 1), np.float32), [], [])
    for label, word, span in zip(
        said, world['words'], world['word_times'], strict=True
    ):
      first, last = np.searchsorted(frames.times, span)
      if last > first:
        rows.append(pool(frames, slice(first, last)))
        labels.append(label)
        types.append(word)
    x = np.stack(rows) if rows else np.zeros((0, 1), np.float32)
    return Examples(x, labels, types)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfFrames(Factor):
  """One label a frame.

  Attributes:
    read: (what is known, seconds [F]) -> labels [F], and which of them are
      known. The types of its control task are the words' phones, each place of
      a word by itself.
  """

  read: Callable[[Mapping[str, Any], np.ndarray], tuple[np.ndarray, np.ndarray]]

  def examples(self, frames, known):
    world = known['world']
    if world is None:
      return Examples(frames.values[:0], [], [])
    labels, kept = self.read(world, frames.times)
    types = _places(world, frames.times)
    return Examples(
        frames.values[kept],
        labels[kept].tolist(),
        [types[i] for i in np.flatnonzero(kept)],
    )


def _places(world, times) -> list[str]:
  """The phone of each frame and its place: 'WORD PLACE', or the silence."""
  spans = [(a, b) for _, a, b in world['phones']]
  words = known_lib.index_at(
      world['word_times'], np.array([(a + b) / 2 for a, b in spans])
  )
  names = []
  for i, word in enumerate(words):
    place = int(np.sum(words[:i] == word))
    said = world['words'][word] if word >= 0 else ''
    names.append(f'{said} {place}')
  found = known_lib.index_at(spans, times)
  return [names[i] if i >= 0 else '' for i in found]


def _phones(world, times):
  names = np.array([name for name, _, _ in world['phones']] + [''])
  spans = [(a, b) for _, a, b in world['phones']]
  found = known_lib.index_at(spans, times)
  return names[found], found >= 0


def _f0(world, times):
  if not known_lib.has_f0(world):
    return np.zeros(len(times)), np.zeros(len(times), bool)
  return cents(known_lib.f0(world, times)), known_lib.voiced(world, times)


def _accents(world):
  accents = world.get('accents')
  return accents and [str(k) for k in accents]


def _voiced(world, times):
  if not known_lib.has_f0(world):
    return np.zeros(len(times), str), np.zeros(len(times), bool)
  labels = np.where(known_lib.voiced(world, times), 'voiced', 'unvoiced')
  return labels, np.ones(len(times), bool)


FACTORS: dict[str, Factor] = {
    'phone': OfFrames(read=_phones),
    'voiced': OfFrames(read=_voiced),
    'f0': OfFrames(read=_f0, number=True, cents=True),
    'word': OfWords(read=lambda world: world['words']),
    'accent': OfWords(read=_accents),
    'speaker': OfClip(name='speaker', hold_out=('text',)),
    'language': OfClip(name='language', hold_out=('text',)),
    'speaker_f0': OfClip(name='speaker_f0', number=True, cents=True),
    **{
        name: OfClip(name=name)
        for name in (
            'group',
            'rate',
            'energy',
            'f0_range',
            'noise_seed',
            'room',
            'noise',
            'band',
            'clipping',
            'mu_law',
            'codec',
        )
    },
}


@functools.cache
def factor(name: str) -> Factor:
  """A factor of FACTORS, or of a name that clips have by themselves."""
  return FACTORS.get(name) or OfClip(name=name)
