"""Intervals for claims, and what a run was able to see.

The unit of replication is the seed. A claim about arms rests on randomised
blocks (`blocks`; of two arms, a t-interval over paired differences); a
bootstrap over items only says how these very checkpoints would fare on other
clips, and is labelled so.
"""

from collections.abc import Mapping
import dataclasses
import math

import numpy as np
from scipy import stats

SEEDS = 'seeds'
CHECKPOINTS = 'these checkpoints'


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean with a confidence interval.

  Attributes:
    mean: the estimate.
    low: lower end; NaN where there is no interval (one observation), infinite
      where only `high` bounds the mean.
    high: upper end; infinite where only `low` bounds the mean.
    n: observations (seeds, or items for a bootstrap).
    level: of confidence.
    over: what varies: `SEEDS`, or `CHECKPOINTS` for a bootstrap over items,
      which does not hold for other seeds.
    detectable: smallest true mean that n such observations would have told
      from 0 with 80% power; NaN where unknown.
  """

  mean: float
  low: float
  high: float
  n: int
  level: float = 0.95
  over: str = SEEDS
  detectable: float = math.nan

  @property
  def excludes_zero(self) -> bool:
    return self.low > 0 or self.high < 0

  def format(self, digits: int = 2) -> str:
    if math.isnan(self.low):
      return f'{self.mean:.{digits}f} (n = {self.n}: no interval)'
    if math.isinf(self.low):
      return f'{self.mean:.{digits}f} [≤ {self.high:.{digits}f}]'
    if math.isinf(self.high):
      return f'{self.mean:.{digits}f} [≥ {self.low:.{digits}f}]'
    return (
        f'{self.mean:.{digits}f}'
        f' [{self.low:.{digits}f}, {self.high:.{digits}f}]'
    )


def t_interval(values, level: float = 0.95) -> Interval:
  """Student's interval for the mean of independent values (df = n - 1).

  Args:
    values: [n], one for each seed; with n = 1 the ends are NaN.
    level: of confidence, in (0, 1).

  Raises:
    ValueError: if there is no value, or one is not finite.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or not np.isfinite(values).all():
    raise ValueError(f'need finite values [n], n >= 1, got {values}')
  n, mean = values.size, float(values.mean())
  if n == 1:
    return Interval(mean, math.nan, math.nan, 1, level)
  error = values.std(ddof=1) / math.sqrt(n)
  t = stats.t.ppf(0.5 + level / 2, n - 1)
  return Interval(
      mean=mean,
      low=float(mean - t * error),
      high=float(mean + t * error),
      n=n,
      level=level,
      detectable=float((t + stats.t.ppf(0.8, n - 1)) * error),
  )


def bootstrap(
    a: Mapping[str, tuple[float, float]],
    b: Mapping[str, tuple[float, float]] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
  """Percentile bootstrap over items of sum / weight, or of its difference.

  It holds for these checkpoints only: seeds do not vary in it, so it must not
  carry a claim about a method.

  Args:
    a: item -> (sum, weight) of one checkpoint.
    b: the same items of another; the result is then that of a - b.
    level: of confidence.
    samples: resamplings of the items.
    seed: of the resampling.

  Raises:
    ValueError: without items, or if a and b have not the same items.
  """
  if not a or (b is not None and set(a) != set(b)):
    raise ValueError('need items, the same for both')
  items = sorted(a)
  rng = np.random.default_rng(seed)
  picks = rng.integers(len(items), size=(samples, len(items)))

  def ratios(scores):
    table = np.array([scores[item] for item in items], np.float64)
    drawn = table[picks].sum(axis=1)
    mean, (sums, weights) = table.sum(axis=0), drawn.T
    return mean[0] / mean[1], sums / weights

  mean, draws = ratios(a)
  if b is not None:
    other_mean, other = ratios(b)
    mean, draws = mean - other_mean, draws - other
  tail = (1 - level) / 2
  low, high = np.quantile(draws, [tail, 1 - tail])
  return Interval(
      float(mean), float(low), float(high), len(items), level, CHECKPOINTS
  )


def verdict(interval: Interval, unit: str = '', digits: int = 3) -> str:
  """One sentence: what the interval says, and if the run could have seen it.

  'No difference found' is a result only as strong as what could have been
  seen, so that is stated with it.
  """
  unit = f' {unit}' if unit else ''
  if math.isnan(interval.low):
    return 'one seed: no claim'
  if interval.excludes_zero:
    direction = 'higher' if interval.mean > 0 else 'lower'
    text = f'{direction} by {abs(interval.mean):.{digits}f}{unit}'
  else:
    text = 'no difference found'
    if not math.isnan(interval.detectable):
      text += (
          f' (differences under {interval.detectable:.{digits}f}{unit} would'
          ' mostly be missed)'
      )
  if interval.over != SEEDS:
    text += f'; {interval.over} only'
  return text
