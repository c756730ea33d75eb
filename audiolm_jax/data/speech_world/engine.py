"""What an engine is: one way to say texts, by speakers of its own."""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

from jaxtyping import Float
import numpy as np

from audiolm_jax.audio import resample
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib

RATE = 16000  # Hz, of all audio.
ENERGIES = (-6.0, -3.0, 0.0, 3.0)  # dB.

# Of a text: the phones of each of its words.
Words = Sequence[tuple[str, ...]]


class Engine(abc.ABC):
  """One way to say texts. What is drawn for a clip is its utterance.

  An utterance is hashable, has a `speaker` with a `name` ('POOL/NAME') and is
  what the engine makes of it: only the engine that drew it can use it.

  Attributes:
    pools: names of its pools of speakers; no other engine has such names.
    held_out: the pool of test clips.
    speaks: the sub-languages that it can say.
    measured: clips that are made to measure how long one is on average, as many
      as a core makes in a few seconds.
    most: clips of its largest config.
  """

  pools: tuple[str, ...]
  held_out: str
  speaks: tuple[str, ...] = languages.LANGUAGES
  measured = 400
  most = 40000

  @abc.abstractmethod
  def speakers(self, pool: str) -> Sequence[Any]:
    """Those of a pool, each with a `name`."""

  @abc.abstractmethod
  def draw(self, rng: np.random.Generator, pool: str, words: Words) -> Any:
    """An utterance of a text by a speaker of a pool."""

  @abc.abstractmethod
  def again(self, utterance: Any, words: Words) -> Any:
    """The utterance with other words: all else as far as it can be the same."""

  @abc.abstractmethod
  def render(self, utterance: Any) -> Float[np.ndarray, ' T']:
    """16 kHz, float32 in [-1, 1]; always the same."""

  @abc.abstractmethod
  def seconds(self, utterance: Any) -> float:
    """How long its audio is."""

  @abc.abstractmethod
  def factors(self, utterance: Any) -> dict[str, Any]:
    """What was drawn and when what is said, as JSON has it.

    Among it `speaker` with its `name`, `rate` and `energy`; `phones`, of which
    each is [name in `phones.PHONES`, start, end], silence at both ends;
    `word_times`, [start, end] each; all in seconds.
    """

  @abc.abstractmethod
  def entropies(
      self, pool: str, phones: float, words: float
  ) -> dict[str, float]:
    """Bits of what is drawn for a clip, by factor, but for its text.

    Args:
      pool: of the speakers.
      phones: mean number of a clip.
      words: mean number of a clip.
    """

  @abc.abstractmethod
  def costs(self, pool: str, factors: Mapping[str, Any]) -> dict[str, float]:
    """-log2 of the probability of what was drawn, as `entropies` names it.

    Args:
      pool: of the clip's speaker.
      factors: of the clip.
    """

  @abc.abstractmethod
  def ranges(self, pool: str) -> dict[str, str]:
    """What each factor of `entropies` is drawn from, in words."""


class Said(NamedTuple):
  """What an engine said.

  Attributes:
    audio: 16 kHz, float32; not to be written to.
    phones: (name, start, end) in seconds, silence at both ends.
    words: (start, end) in seconds.
  """

  audio: Float[np.ndarray, ' T']
  phones: tuple[tuple[str, float, float], ...]
  words: tuple[tuple[float, float], ...]

  @classmethod
  def of(
      cls,
      audio: Float[np.ndarray, ' T'],
      rate: int,
      starts: Sequence[tuple[str, int]],
      words: Words,
  ) -> 'Said':
    """What was said, from an engine's own audio and times.

    Args:
      audio: at `rate`.
      rate: in Hz.
      starts: (phone, the sample where it starts), ascending.
      words: their phones.
    """
    audio = resample.mono(audio[:, None], rate, RATE)
    audio = np.clip(audio, -1, 1).astype(np.float32)
    audio.flags.writeable = False  # It is kept.
    phones = timeline(starts, rate, len(audio) / RATE)
    return cls(audio, phones, word_times(phones, words))


class Renderer(Engine):
  """An engine whose times are known from what it said.

  Its utterances are dataclasses with the field `words`; all other fields but
  the speaker are factors, and each is drawn from a grid.
  """

  @abc.abstractmethod
  def said(self, utterance: Any) -> Said:
    """Says it; asked for several times in a row."""

  @abc.abstractmethod
  def grids(self, pool: str) -> dict[str, Sequence[Any]]:
    """What each factor is drawn from, all values as likely."""

  def again(self, utterance, words):
    return dataclasses.replace(utterance, words=tuple(words))

  def render(self, utterance):
    return self.said(utterance).audio.copy()

  def seconds(self, utterance):
    return len(self.said(utterance).audio) / RATE

  def factors(self, utterance):
    said, drawn = self.said(utterance), dataclasses.asdict(utterance)
    del drawn['words']
    return {
        'phones': [list(each) for each in said.phones],
        'word_times': [list(each) for each in said.words],
        **drawn,
    }

  def entropies(self, pool, phones, words):
    del phones, words  # Durations and accents are the engine's own.
    return bits(**self.grids(pool))

  def costs(self, pool, factors):
    del factors
    return bits(**self.grids(pool))


def pick(rng: np.random.Generator, values: Sequence[Any]) -> Any:
  """One of some values, all as likely."""
  return values[int(rng.integers(len(values)))]


def bits(**grids: Sequence[Any]) -> dict[str, float]:
  """Of one value of each grid, all as likely."""
  return {name: math.log2(len(values)) for name, values in grids.items()}


def timeline(
    starts: Sequence[tuple[str, int]], rate: int, seconds: float
) -> tuple[tuple[str, float, float], ...]:
  """(phone, start, end) of a whole clip in seconds, silence at both ends.

  Silences that follow each other are one.

  Args:
    starts: (phone, the sample where it starts), ascending.
    rate: of those samples, in Hz.
    seconds: the clip's length.
  """
  merged = [(phones_lib.SILENCE, 0.0)]
  for name, start in starts:
    if not name == merged[-1][0] == phones_lib.SILENCE:
      merged.append((name, round(start / rate, 3)))
  if merged[-1][0] != phones_lib.SILENCE:
    raise ValueError(f'a clip ends in silence, not in {merged[-1][0]!r}')
  ends = [start for _, start in merged[1:]] + [round(seconds, 3)]
  return tuple(
      (name, start, end)
      for (name, start), end in zip(merged, ends, strict=True)
  )


def word_times(
    timed: Sequence[tuple[str, float, float]], words: Sequence[Sequence[str]]
) -> tuple[tuple[float, float], ...]:
  """(start, end) of each word, of its first and its last phone.

  Args:
    timed: (phone, start, end) of the clip.
    words: their phones.
  """
  spoken = iter(each for each in timed if each[0] != phones_lib.SILENCE)
  result = []
  for word in words:
    own = [next(spoken) for _ in word]
    result.append((own[0][1], own[-1][2]))
  return tuple(result)
