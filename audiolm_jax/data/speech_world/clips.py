"""Clips of speech_world: everything drawn for one, its audio, its entropies.

A clip is a function of a `World` and a number: no file is needed to make it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import math
from typing import Any

from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import splits
from audiolm_jax.data.speech_world import channels
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.data.speech_world import synthesiser
from audiolm_jax.data.speech_world import utterance as utterance_lib

RATES = (0.9, 1.0, 1.12, 1.25)
ENERGIES = (-6.0, -3.0, 0.0, 3.0)
F0_RANGES = (0.7, 1.0, 1.4)
NOISE_SEEDS = 16
LONGER = 0.1  # Probability that a phone lasts a step more.
FRACTIONS = {'test': 0.1, 'validation': 0.1}


@dataclasses.dataclass(frozen=True)
class World:
  """A set of clips.

  Attributes:
    language: in `languages.LANGUAGES`.
    pool: in `speakers.POOLS`: of training and validation. Test clips are of
      'held_out'.
    channels: whether each clip goes through a drawn channel.
    seed: of all draws.
  """

  language: str
  pool: str = 'lm'
  channels: bool = False
  seed: int = 0

  def __post_init__(self):
    if self.language not in languages.LANGUAGES:
      raise config.ConfigError(
          f'language = {self.language!r}: there are {languages.LANGUAGES}'
      )
    if self.pool not in speakers.POOLS:
      raise config.ConfigError(
          f'pool = {self.pool!r}: there are {speakers.POOLS}'
      )


@dataclasses.dataclass(frozen=True)
class Clip:
  """All that was drawn for one clip.

  Attributes:
    world: whose clip.
    index: its number.
    split: by a hash of its text.
    words: of the text.
    log2p: of the text.
    rate: of speech.
    longer: for each phone, the steps that it lasts more.
    utterance: who says it and how.
    channel: what it goes through.
  """

  world: World
  index: int
  split: str
  words: tuple[str, ...]
  log2p: float
  rate: float
  longer: tuple[int, ...]
  utterance: utterance_lib.Utterance
  channel: channels.Channel

  @property
  def text(self) -> str:
    """The words, a space apart."""
    return ' '.join(self.words)

  @property
  def id(self) -> str:
    """Unique in its world."""
    return f'{self.world.language}/{self.world.pool}/{self.index:07d}'

  def audio(self) -> Float[np.ndarray, ' T']:
    """16 kHz, float32 in [-1, 1]; always the same."""
    dry = synthesiser.render(self.utterance)
    return channels.apply(dry, self.channel)

  def twin(self) -> 'Clip':
    """The clip with one word that is wrong, all else as it is.

    The speaker, the accents, the channel, the seed of the noise and, where the
    words have as many phones, what each phone lasts more, are the same.

    Raises:
      ConfigError: for a language in which no word can be wrong.
    """
    language = languages.language(self.world.language)
    words = tuple(language.twin(self.words))
    spoken, u = language.phones(words), self.utterance
    count = sum(map(len, spoken))
    said = _said(
        spoken,
        self.rate,
        longer=(*self.longer, *([0] * count))[:count],
        accents=[k for _, _, k in u.accents],
        speaker=u.speaker,
        f0_range=u.f0_range,
        energy=u.energy,
        noise_seed=u.noise_seed,
    )
    return dataclasses.replace(self, words=words, log2p=-math.inf, **said)

  def factors(self) -> dict[str, Any]:
    """Everything known of the clip, as JSON has it; times in seconds."""
    language = languages.language(self.world.language)
    agreement = language.agreement(self.words)
    u = self.utterance
    step = phones_lib.STEP
    return {
        'sub_language': self.world.language,
        'words': list(self.words),
        'log2p': self.log2p if math.isfinite(self.log2p) else None,
        'agreement': agreement
        and {
            'noun': agreement.noun,
            'verb': agreement.verb,
            'distance': agreement.distance,
        },
        'phones': [
            [phone, round(a * step, 3), round(b * step, 3)]
            for phone, a, b in zip(u.phones, u.starts, u.ends, strict=True)
        ],
        'word_times': [
            [round(a * step, 3), round(b * step, 3)] for a, b, _ in u.accents
        ],
        'accents': [k for _, _, k in u.accents],
        'longer': list(self.longer),
        'rate': self.rate,
        'energy': u.energy,
        'f0_range': u.f0_range,
        'noise_seed': u.noise_seed,
        'speaker': dataclasses.asdict(u.speaker),
        'channel': dataclasses.asdict(self.channel),
    }


def clip(world: World, index: int) -> Clip:
  """The clip of a number, which depends on no other clip."""
  language = languages.language(world.language)
  rng = np.random.default_rng(
      (
          world.seed,
          languages.LANGUAGES.index(world.language),
          speakers.POOLS.index(world.pool),
          index,
      )
  )
  words, log2p = language.grammar.sample(rng)
  split = split_of(words)
  pool = speakers.pool('held_out' if split == 'test' else world.pool)
  speaker = pool[int(rng.integers(len(pool)))]
  rate, energy, f0_range = (
      values[int(rng.integers(len(values)))]
      for values in (RATES, ENERGIES, F0_RANGES)
  )
  noise_seed = int(rng.integers(NOISE_SEEDS))
  spoken = language.phones(words)
  accents = rng.integers(len(utterance_lib.ACCENTS), size=len(words))
  longer = rng.random(sum(map(len, spoken))) < LONGER
  # Drawn last and always, so that a world with channels has the same clips.
  channel = channels.draw(rng)
  return Clip(
      world=world,
      index=index,
      split=split,
      words=tuple(words),
      log2p=log2p,
      channel=channel if world.channels else channels.Channel(),
      **_said(
          spoken,
          rate,
          longer=longer,
          accents=accents.tolist(),
          speaker=speaker,
          f0_range=f0_range,
          energy=energy,
          noise_seed=noise_seed,
      ),
  )


def split_of(words: Sequence[str]) -> str:
  """The split of a text, by its hash alone."""
  key = splits.normalize(' '.join(words))
  return splits.assign({key: [key]}, FRACTIONS)[key]


def _said(spoken, rate, longer, **how):
  """The fields of a clip that say when each phone is spoken, and how."""
  longer = tuple(map(int, longer))
  utterance = utterance_lib.plan(words=spoken, rate=rate, changes=longer, **how)
  return {'rate': rate, 'longer': longer, 'utterance': utterance}


@functools.cache
def mean_seconds(world: World, clips: int = 400) -> float:
  """Mean duration of a clip, over the first ones."""
  return float(
      np.mean([clip(world, i).utterance.seconds for i in range(clips)])
  )


def entropies(world: World) -> Mapping[str, float]:
  """Bits a clip of each group of factors; all are exact.

  'text' is the grammar's; all others together are what a model of the audio
  may have to pay beside it: nuisances. Tokens of the audio are a function of
  all factors, so no tokens have more entropy than the sum.
  """
  language = languages.language(world.language)
  phones, words = language.mean_phones(), language.grammar.mean()
  longer = -sum(p * math.log2(p) for p in (LONGER, 1 - LONGER))
  result = {
      'text': language.grammar.entropy(),
      'durations': longer * phones,
      'rate': math.log2(len(RATES)),
      'accents': math.log2(len(utterance_lib.ACCENTS)) * words,
      'f0_range': math.log2(len(F0_RANGES)),
      'energy': math.log2(len(ENERGIES)),
      'speaker': math.log2(speakers.POOL_SIZE),
      'noise_seed': math.log2(NOISE_SEEDS),
  }
  if world.channels:
    result |= {f'channel {k}': v for k, v in channels.entropies().items()}
  return result


def costs(factors: Mapping[str, Any]) -> dict[str, float]:
  """Bits of what was drawn for one clip, -log2 of its probability, by factor.

  Their means over clips are `entropies` of a world without channels.

  Args:
    factors: of the clip, as `Clip.factors` has them.

  Raises:
    ValueError: for a clip behind a channel, or one that its grammar can't make.
  """
  if channels.Channel(**factors['channel']) != channels.Channel():
    raise ValueError('a channel was drawn for the clip: not counted')
  if factors['log2p'] is None:
    raise ValueError('the clip has a text of probability 0')
  longer = [-math.log2(LONGER if n else 1 - LONGER) for n in factors['longer']]
  return {
      'text': -factors['log2p'],
      'durations': sum(longer),
      'rate': math.log2(len(RATES)),
      'accents': math.log2(len(utterance_lib.ACCENTS)) * len(factors['words']),
      'f0_range': math.log2(len(F0_RANGES)),
      'energy': math.log2(len(ENERGIES)),
      'speaker': math.log2(speakers.POOL_SIZE),
      'noise_seed': math.log2(NOISE_SEEDS),
  }


def card(world: World) -> str:
  """What the world holds: factors, ranges, and each one's entropy."""
  language = languages.language(world.language)
  phones, seconds = language.mean_phones(), mean_seconds(world)
  ranges = {
      'text': f'{len(language.lexicon)} words, {language.grammar.mean():.2f} a'
      f' clip, {phones:.2f} phones',
      'durations': f"Klatt's, each a step of 10 ms longer with p {LONGER}",
      'rate': RATES,
      'accents': f'amplitudes {utterance_lib.ACCENTS} a word',
      'f0_range': F0_RANGES,
      'energy': f'{ENERGIES} dB',
      'speaker': f'{speakers.POOL_SIZE} of pool {world.pool}; test: held_out',
      'noise_seed': f'{NOISE_SEEDS} frozen seeds',
      'channel room': f'RT60 {channels.ROOMS} s, {channels.SEEDS} seeds each',
      'channel noise': f'none, {", ".join(channels.NOISES[1:])} dB SNR,'
      f' {channels.SEEDS} seeds each',
      'channel band': ', '.join(channels.BANDS),
      'channel clipping': f'{channels.CLIPPING} of the peak',
      'channel mu-law': f'{channels.BITS} bits (0: none)',
  }
  bits = entropies(world)
  rows = [*bits.items(), ('nuisances', sum(bits.values()) - bits['text'])]
  lines = ['factor            bits a clip  a phone  a second  range']
  for name, value in rows:
    lines.append(
        f'{name:17s} {value:11.3f} {value / phones:8.3f} {value / seconds:9.2f}'
        f'  {ranges.get(name, "the sum of all but text")}'
    )
  lines.append(
      'a text is in one split by its hash: who knew which texts are in training'
      f' would save {-math.log2(1 - sum(FRACTIONS.values())):.3f} bits a clip'
      ' there'
  )
  if world.language == 'sentences':
    shares = language.distances(10)
    lines.append(
        'words between noun and verb: '
        + ', '.join(f'{d}: {p:.3f}' for d, p in enumerate(shares) if p)
        + '; number costs 0 bits at the verb, 1 where it is forgotten'
    )
  return '\n'.join(lines)


def to_json(example: Clip) -> str:
  """`Clip.factors` as a line of JSON."""
  return json.dumps(example.factors(), ensure_ascii=False)
