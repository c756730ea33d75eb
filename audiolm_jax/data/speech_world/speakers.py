"""Three pools of speakers that share nobody, drawn from one population.

f0, tract length and the formants' own pattern have the joint statistics of the
men, women and children of Peterson and Barney's data; each is on a grid.
"""

import dataclasses
import functools
from typing import Literal, get_args

from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.data.speech_world import phones as phones_lib

Pool = Literal['tokenizer', 'lm', 'held_out']
POOLS: tuple[str, ...] = get_args(Pool)
POOL_SIZE = 64
GROUPS = ('man', 'woman', 'child')
_SHARES = (33, 28, 15)
_F0 = (130.0, 221.0, 262.0)
_F0_SPREAD = (0.127, 0.092, 0.122)
_SCALE_SPREAD = (0.042, 0.040, 0.059)
_CORRELATION = (0.31, 0.49, 0.11)
# Of a formant beyond tract length, without what repetitions differ by.
_PATTERN_SPREAD = 0.06
# Grids: of log f0 and log scale their steps; the others' values.
F0_STEP = 0.03
SCALE_STEP = 0.01
RD_GRID = (0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.4)
JITTER_GRID = (0.003, 0.006, 0.009)
BREATH_GRID = (0.1, 0.25, 0.5)
_FRAMES = tuple(phones_lib.VOWEL_FORMANTS)


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A voice.

  Attributes:
    name: 'POOL/number'.
    group: index in `GROUPS`.
    f0: Hz around which the voice moves.
    scale: formants' ratio to those of the group's mean.
    pattern: index of the frozen pattern of its own formants.
    rd: the LF model's shape.
    jitter: sigma of a period.
    breath: level of the noise in the voice.
  """

  name: str
  group: int
  f0: float
  scale: float
  pattern: int
  rd: float
  jitter: float
  breath: float

  @property
  def tract(self) -> float:
    """Formants' ratio to those of the mean man."""
    return phones_lib.GROUP_SCALES[self.group] * self.scale

  def formants(self, vowel: str) -> Float[np.ndarray, ' 3']:
    """F1, F2, F3 in Hz of a steady vowel of `phones.VOWEL_FORMANTS`."""
    own = _pattern(self.pattern)[_FRAMES.index(vowel)]
    return phones_lib.VOWEL_FORMANTS[vowel][self.group] * self.scale * own


@functools.cache
def _pattern(index: int) -> Float[np.ndarray, 'V 3']:
  """Factors by which a speaker's formants are its own."""
  rng = np.random.default_rng((1952, index))
  drawn = rng.standard_normal((len(_FRAMES), 3)).clip(-2, 2)
  return np.exp(_PATTERN_SPREAD * drawn)


@functools.cache
def pool(name: str) -> tuple[Speaker, ...]:
  """The 64 speakers of a pool in `POOLS`.

  Raises:
    ConfigError: for another name.
  """
  if name not in POOLS:
    raise config.ConfigError(f'there is no pool {name!r}, but {POOLS}')
  first = POOLS.index(name)
  return tuple(
      dataclasses.replace(speaker, name=f'{name}/{i:02d}')
      for i, speaker in enumerate(_population()[first :: len(POOLS)])
  )


@functools.cache
def _population() -> tuple[Speaker, ...]:
  """All speakers; no two have the same f0, tract length and source."""
  rng = np.random.default_rng(1995)
  shares = np.array(_SHARES) / sum(_SHARES)
  result: list[Speaker] = []
  seen = set()
  while len(result) < len(POOLS) * POOL_SIZE:
    group = int(rng.choice(len(GROUPS), p=shares))
    a, b = rng.standard_normal(2).clip(-2, 2)
    r = _CORRELATION[group]
    log_f0 = np.log(_F0[group]) + _F0_SPREAD[group] * a
    log_scale = _SCALE_SPREAD[group] * (r * a + np.sqrt(1 - r * r) * b)
    source = [
        grid[int(rng.integers(len(grid)))]
        for grid in (RD_GRID, JITTER_GRID, BREATH_GRID)
    ]
    f0 = float(np.exp(F0_STEP * round(log_f0 / F0_STEP)))
    scale = float(np.exp(SCALE_STEP * round(log_scale / SCALE_STEP)))
    if (group, f0, scale, *source) not in seen:
      seen.add((group, f0, scale, *source))
      result.append(Speaker('', group, f0, scale, len(result), *source))
  return tuple(result)
