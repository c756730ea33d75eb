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
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import espeak
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import piper
from audiolm_jax.data.speech_world import source_filter

# In this order: a pool's place is part of its clips' seeds.
ENGINES: tuple[engine_lib.Engine, ...] = (
    source_filter.SourceFilter(),
    espeak.Espeak(),
    piper.Piper(),
)
POOLS: Mapping[str, engine_lib.Engine] = {
    pool: engine for engine in ENGINES for pool in engine.pools
}
FRACTIONS = {'test': 0.1, 'validation': 0.1}


@dataclasses.dataclass(frozen=True)
class World:
  """A set of clips.

  Attributes:
    language: in `languages.LANGUAGES`.
    pool: in `POOLS`: of the speakers of training and validation, and so of the
      engine. Test clips are of the engine's held-out pool.
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
    if self.pool not in POOLS:
      raise config.ConfigError(
          f'pool = {self.pool!r}: there are {tuple(POOLS)}'
      )
    if self.language not in self.engine.speaks:
      raise config.ConfigError(
          f'language = {self.language!r}: the pool {self.pool!r} speaks'
          f' {self.engine.speaks}'
      )

  @property
  def engine(self) -> engine_lib.Engine:
    """Who makes its audio."""
    return POOLS[self.pool]


@dataclasses.dataclass(frozen=True)
class Clip:
  """All that was drawn for one clip.

  Attributes:
    world: whose clip.
    index: its number.
    split: by a hash of its text.
    words: of the text.
    log2p: of the text.
    utterance: who says it and how: what the world's engine drew.
    channel: what it goes through.
  """

  world: World
  index: int
  split: str
  words: tuple[str, ...]
  log2p: float
  utterance: Any
  channel: channels.Channel

  @property
  def text(self) -> str:
    """The words, a space apart."""
    return ' '.join(self.words)

  @property
  def id(self) -> str:
    """Unique in its world."""
    return f'{self.world.language}/{self.world.pool}/{self.index:07d}'

  @property
  def seconds(self) -> float:
    """How long it lasts."""
    return self.world.engine.seconds(self.utterance)

  def audio(self) -> Float[np.ndarray, ' T']:
    """16 kHz, float32 in [-1, 1]; always the same."""
    dry = self.world.engine.render(self.utterance)
    return channels.apply(dry, self.channel)

  def twin(self) -> 'Clip':
    """The clip with one word that is wrong, all else as it is.

    The speaker, all that was drawn of how it is said, the channel and, where
    the words have as many phones, what each phone lasts more, are the same.

    Raises:
      ConfigError: for a language in which no word can be wrong.
    """
    language = languages.language(self.world.language)
    words = tuple(language.twin(self.words))
    spoken = language.phones(words)
    utterance = self.world.engine.again(self.utterance, spoken)
    return dataclasses.replace(
        self, words=words, log2p=-math.inf, utterance=utterance
    )

  def factors(self) -> dict[str, Any]:
    """Everything known of the clip, as JSON has it; times in seconds."""
    language = languages.language(self.world.language)
    agreement = language.agreement(self.words)
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
        **self.world.engine.factors(self.utterance),
        'channel': dataclasses.asdict(self.channel),
    }


def clip(world: World, index: int) -> Clip:
  """The clip of a number, which depends on no other clip."""
  language = languages.language(world.language)
  rng = np.random.default_rng(
      (
          world.seed,
          languages.LANGUAGES.index(world.language),
          list(POOLS).index(world.pool),
          index,
      )
  )
  words, log2p = language.grammar.sample(rng)
  split = split_of(words)
  engine = world.engine
  pool = engine.held_out if split == 'test' else world.pool
  utterance = engine.draw(rng, pool, language.phones(words))
  # Drawn last and always, so that a world with channels has the same clips.
  channel = channels.draw(rng)
  return Clip(
      world=world,
      index=index,
      split=split,
      words=tuple(words),
      log2p=log2p,
      utterance=utterance,
      channel=channel if world.channels else channels.Channel(),
  )


def split_of(words: Sequence[str]) -> str:
  """The split of a text, by its hash alone."""
  key = splits.normalize(' '.join(words))
  return splits.assign({key: [key]}, FRACTIONS)[key]


@functools.cache
def mean_seconds(world: World, clips: int | None = None) -> float:
  """Mean duration of a clip.

  Args:
    world: whose.
    clips: over how many, the first ones; None for as many as its engine makes
      in a few seconds.
  """
  count = clips or world.engine.measured
  return float(np.mean([clip(world, i).seconds for i in range(count)]))


def entropies(world: World) -> Mapping[str, float]:
  """Bits a clip of each group of factors; all are exact.

  'text' is the grammar's; all others together are what a model of the audio
  may have to pay beside it: nuisances. Tokens of the audio are a function of
  all factors, so no tokens have more entropy than the sum.
  """
  language = languages.language(world.language)
  phones, words = language.mean_phones(), language.grammar.mean()
  result = {
      'text': language.grammar.entropy(),
      **world.engine.entropies(world.pool, phones, words),
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
  pool = factors['speaker']['name'].partition('/')[0]
  return {'text': -factors['log2p'], **POOLS[pool].costs(pool, factors)}


def card(world: World) -> str:
  """What the world holds: factors, ranges, and each one's entropy."""
  language = languages.language(world.language)
  phones, seconds = language.mean_phones(), mean_seconds(world)
  ranges = {
      'text': f'{len(language.lexicon)} words, {language.grammar.mean():.2f} a'
      f' clip, {phones:.2f} phones',
      **world.engine.ranges(world.pool),
      'speaker': f'{len(world.engine.speakers(world.pool))} of pool'
      f' {world.pool}; test: {world.engine.held_out}',
      'channel room': f'RT60 {channels.ROOMS} s, {channels.SEEDS} seeds each',
      'channel noise': f'none, {", ".join(channels.NOISES[1:])} dB SNR,'
      f' {channels.SEEDS} seeds each',
      'channel band': ', '.join(channels.BANDS),
      'channel clipping': f'{channels.CLIPPING} of the peak',
      'channel mu-law': f'{channels.BITS} bits (0: none)',
      'channel codec': f'none{", ".join(channels.CODECS)}',
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
