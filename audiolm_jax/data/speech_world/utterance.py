"""Who says which phones when and at what pitch; and what that asks of a tract.

An `Utterance` holds nothing but discrete choices. `articulate` makes of it the
tracks that the synthesiser reads, as points between which lines are drawn.
"""

from collections.abc import Sequence
import dataclasses
import math

from jaxtyping import Float
import numpy as np

from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import source as source_lib
from audiolm_jax.data.speech_world import speakers

LEAD, TAIL = 6, 10  # Steps of silence before and after.
PHRASE = 0.35  # Amplitude of the phrase command.
ACCENTS = (0.0, 0.25)  # Amplitudes that a word's accent may have.
_TRANSITION = 0.05  # Seconds.
_RAMP = 0.006
_BURST = 0.012
_F1_CLOSED = 250.0


@dataclasses.dataclass(frozen=True)
class Utterance:
  """What is said and how.

  Attributes:
    speaker: whose voice.
    phones: names of all phones, silence at both ends.
    ends: the step (10 ms) at which each phone ends.
    accents: (from step, to step, index in `ACCENTS`) of each word.
    f0_range: factor on all of f0's commands.
    energy: dB.
    noise_seed: of noise and jitter.
    rate: of speech, 1 for Klatt's: what `ends` were made with.
    longer: for each phone but silence, the steps that it lasts more.
  """

  speaker: speakers.Speaker
  phones: tuple[str, ...]
  ends: tuple[int, ...]
  accents: tuple[tuple[int, int, int], ...] = ()
  f0_range: float = 1.0
  energy: float = 0.0
  noise_seed: int = 0
  rate: float = 1.0
  longer: tuple[int, ...] = ()

  @property
  def seconds(self) -> float:
    """How long it lasts."""
    return self.ends[-1] * phones_lib.STEP

  @property
  def starts(self) -> tuple[int, ...]:
    """The step at which each phone starts."""
    return (0, *self.ends[:-1])

  def f0(self, t: Float[np.ndarray, ' n']) -> Float[np.ndarray, ' n']:
    """Hz at seconds `t`, where there is voice."""
    step = phones_lib.STEP
    spans = [(a * step, b * step, k) for a, b, k in self.accents]
    return f0_contour(t, self.speaker.f0, self.f0_range, spans)


def f0_contour(
    t: Float[np.ndarray, ' n'],
    speaker_f0: float,
    f0_range: float,
    accents: Sequence[tuple[float, float, int]],
) -> Float[np.ndarray, ' n']:
  """Hz at seconds `t` of one phrase, where there is voice.

  Args:
    t: seconds from the clip's start.
    speaker_f0: Hz around which the voice moves.
    f0_range: factor on all commands.
    accents: (from second, to second, index in `ACCENTS`) of each word.
  """
  base = speaker_f0 * math.exp(-0.6 * PHRASE * f0_range)
  return source_lib.f0_contour(
      t,
      base,
      [(-0.1, PHRASE * f0_range)],
      [(a, b, f0_range * ACCENTS[k]) for a, b, k in accents],
  )


@dataclasses.dataclass(frozen=True)
class Noise:
  """One noise: seconds, a band in Hz ((0, 0): formants), linear amplitude."""

  start: float
  end: float
  band: tuple[float, float]
  amplitude: float
  burst: bool = False


@dataclasses.dataclass
class Tracks:
  """What the tract does, as points (seconds, value).

  Attributes:
    formants: seconds, F1, F2, F3.
    voicing: seconds, amplitude of the glottal pulses.
    closed: (start, end) of voice behind a closed mouth.
    nasals: (start, end, zero in Hz).
    noises: bursts, frication, aspiration.
  """

  formants: list[tuple[float, float, float, float]]
  voicing: list[tuple[float, float]]
  closed: list[tuple[float, float]]
  nasals: list[tuple[float, float, float]]
  noises: list[Noise]


def locus(place: str, f2: float, scale: float) -> float:
  """F2 in Hz where a consonant of a place meets a vowel of F2 `f2`.

  Args:
    place: in `phones.LOCI`.
    f2: Hz of the steady vowel.
    scale: the speaker's formants' ratio to a man's.
  """
  k, c = phones_lib.LOCI[place]
  return k * f2 + c * scale


def targets(
    speaker: speakers.Speaker, phone: str
) -> tuple[np.ndarray, np.ndarray] | None:
  """F1 to F3 at the start and the end of a steady phone; None if it has none."""
  if phone in phones_lib.VOWELS:
    start, end = phones_lib.VOWELS[phone]
    return speaker.formants(start), speaker.formants(end)
  consonant = phones_lib.CONSONANTS.get(phone)
  if consonant is None or not consonant.formants[0]:
    return None
  each = np.array(consonant.formants) * speaker.tract
  return each, each


def _meeting(speaker, left, right) -> np.ndarray:
  """Formants where two phones meet."""
  sides = [targets(speaker, left), targets(speaker, right)]
  near = [
      side[1 - i] if side is not None else None for i, side in enumerate(sides)
  ]
  neutral = np.array([500.0, 1500.0, 2500.0]) * speaker.tract
  for i, phone in enumerate((left, right)):
    consonant = phones_lib.CONSONANTS.get(phone)
    if consonant is None or consonant.kind == 'approximant':
      continue
    if not consonant.place:  # h sounds through the vowel.
      return neutral if near[1 - i] is None else near[1 - i]
    vowel = neutral if near[1 - i] is None else near[1 - i]
    closed = 400.0 if not consonant.voiced else _F1_CLOSED
    return np.array(
        [
            min(closed * speaker.tract, vowel[0]),
            locus(consonant.place, vowel[1], speaker.tract),
            vowel[2],
        ]
    )
  known = [each for each in near if each is not None]
  return np.mean(known, axis=0) if known else neutral


def _formants(utterance) -> list[tuple[float, ...]]:
  speaker, phones = utterance.speaker, utterance.phones
  meets = [
      _meeting(speaker, left, right)
      for left, right in zip(phones, phones[1:], strict=False)
  ]
  meets = [meets[0], *meets, meets[-1]]
  points = []
  for i, phone in enumerate(phones):
    start = utterance.starts[i] * phones_lib.STEP
    end = utterance.ends[i] * phones_lib.STEP
    points.append((start, *meets[i]))
    steady = targets(speaker, phone)
    if steady is not None:
      width = min(_TRANSITION, (end - start) / 2.2)
      points.append((start + width, *steady[0]))
      points.append((end - width, *steady[1]))
  points.append((utterance.seconds, *meets[-1]))
  return points


_VOICING = {'nasal': 0.5, 'approximant': 0.7, 'fricative': 0.3, 'stop': 0.25}
# Of noise at 0 dB, against a vowel's rms of about .1.
_NOISE = 0.05


def articulate(utterance: Utterance) -> Tracks:
  """The tracks of an utterance."""
  tracks = Tracks(_formants(utterance), [], [], [], [])
  for i, phone in enumerate(utterance.phones):
    start = utterance.starts[i] * phones_lib.STEP
    end = utterance.ends[i] * phones_lib.STEP
    consonant = phones_lib.CONSONANTS.get(phone)
    level = float(phone in phones_lib.VOWELS)
    if consonant is not None:
      level = _VOICING[consonant.kind] if consonant.voiced else 0.0
      following = (
          utterance.phones[i + 1]
          if i + 1 < len(utterance.phones)
          else phones_lib.SILENCE
      )
      _consonant(tracks, utterance.speaker, consonant, start, end, following)
    tracks.voicing += [(start + _RAMP, level), (end - _RAMP, level)]
  return tracks


def _consonant(tracks, speaker, consonant, start, end, following):
  """Adds what a consonant has beside formants and voice."""
  scale = speaker.tract
  low, high = (f * scale for f in consonant.band)
  amplitude = _NOISE * 10 ** (consonant.gain / 20)
  if consonant.kind == 'nasal':
    tracks.nasals.append((start, end, consonant.zero * scale))
  elif consonant.kind == 'fricative':
    tracks.noises.append(Noise(start, end, (low, high), amplitude))
    if consonant.voiced:
      tracks.closed.append((start, end))
  elif consonant.kind == 'stop':
    release = end - consonant.onset - phones_lib.STEP * (not consonant.voiced)
    if not high:
      vowel = targets(speaker, following)
      f2 = 1500.0 * scale if vowel is None else vowel[0][1]
      low, high = f2 - 300, f2 + 300
    tracks.noises.append(
        Noise(release, release + _BURST, (low, high), amplitude, True)
    )
    if consonant.voiced:
      tracks.closed.append((start, release))
    else:
      tracks.noises.append(
          Noise(release + _BURST / 2, end, (0, 0), 0.3 * _NOISE)
      )


def plan(
    speaker: speakers.Speaker,
    words: Sequence[Sequence[str]],
    *,
    rate: float = 1.0,
    longer: Sequence[int] | None = None,
    accents: Sequence[int] | None = None,
    **options,
) -> Utterance:
  """An utterance of some words, with Klatt's durations.

  Args:
    speaker: whose voice.
    words: their phones.
    rate: see `phones.durations`.
    longer: steps to add to each phone; None for none.
    accents: index in `ACCENTS` of each word; None for the first.
    **options: other fields of the utterance.

  Raises:
    ValueError: if there are no words, or too few of the others.
  """
  steps = phones_lib.durations(words, rate)
  count = sum(map(len, steps))
  if not count:
    raise ValueError('an utterance needs a word')
  longer = [0] * count if longer is None else list(longer)
  accents = [0] * len(words) if accents is None else list(accents)
  if len(longer) != count or len(accents) != len(words):
    raise ValueError(
        f'{len(longer)} of longer and {len(accents)} accents for {count} phones'
        f' of {len(words)} words'
    )
  position, ends, spans = LEAD, [LEAD], []
  for word, k in zip(steps, accents, strict=True):
    first = position
    for step in word:
      position += max(3, step + longer[len(ends) - 1])
      ends.append(position)
    spans.append((first, position, k))
  names = [phone for word in words for phone in word]
  return Utterance(
      speaker=speaker,
      phones=(phones_lib.SILENCE, *names, phones_lib.SILENCE),
      ends=(*ends, position + TAIL),
      accents=tuple(spans),
      rate=rate,
      longer=tuple(longer),
      **options,
  )
