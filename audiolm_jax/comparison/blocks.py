"""Complete randomised blocks: arms side by side in every seed.

Seeds are blocks: what a seed does to all arms alike is taken away, and the
variance that is left is pooled over arms, with (arms - 1)(seeds - 1) degrees of
freedom. Contrasts that are declared together are claimed together: their
intervals hold at once, and so do their p values (`multiplicity`).

Pooling fails where the arm that all others are compared with varies more than
they do: at 3 times the others' variance, 3 seeds and 14 arms, 14% of null
families are claimed, not 5%; with 5 seeds 15%. So many-to-one contrasts are
*guarded*: the variance of differences from the shared arm is also estimated by
itself, and the wider of the two intervals is taken. Then at most 5% are claimed
under variances up to 3:1 however they lie, with 3 seeds already; intervals are
about a third wider for it with 3 seeds, a sixth with 5. Other lists of contrasts
are pooled only: under 3:1 up to 5.4% are claimed in a chain of 4 arms, 9.7% in
one of 14 (tests/comparison/test_blocks.py simulates and prints all of this).
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math

from jaxtyping import Float
import numpy as np
from scipy import special
from scipy import stats

from audiolm_jax.comparison import multiplicity
from audiolm_jax.comparison import statistics

# What a comparison may say.
NO_CLAIM = 'no claim'  # One seed.
DIFFERENT = 'different'
EQUAL = 'equal'  # Within the margin that was declared.
UNDECIDED = 'undecided'
POWER = 0.8
_MOST_SEEDS = 1000
# The bound of the sd that seeds are planned by.
_PLANNED = 0.8


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Two arms to compare as a - b, declared before the run.

  Attributes:
    a: an arm.
    b: another.
    sided: `multiplicity.BOTH`, or the only direction of a - b that may be
      claimed: `LOWER` where a is an upper bound beside an exact value b (below
      it the bound wins, above it it says nothing), `HIGHER` where b is one.
    margin: differences within it count as none; None where no equality is to be
      claimed.
    expected: for a positive control, the direction of a - b that is known and
      must be found; '' for a claim.
    null: what it means if nothing is found.

  Raises:
    ValueError: for a margin that is not positive or stands on a one-sided
      contrast, or an expected direction that is none.
  """

  a: str
  b: str
  sided: str = multiplicity.BOTH
  margin: float | None = None
  expected: str = ''
  null: str = ''

  def __post_init__(self):
    if self.margin is not None and not 0 < self.margin < math.inf:
      raise ValueError(f'{self.name}: a margin is positive, not {self.margin}')
    if self.margin is not None and self.sided != multiplicity.BOTH:
      raise ValueError(f'{self.name}: a one-sided contrast shows no equality')
    directions = multiplicity.LOWER, multiplicity.HIGHER
    if self.expected and self.expected not in directions:
      raise ValueError(
          f'{self.name}: expected is one of {directions}, not {self.expected}'
      )

  @property
  def name(self) -> str:
    return f'{self.a} − {self.b}'


@dataclasses.dataclass(frozen=True)
class Spread:
  """An estimate of the standard deviation of one arm's value in one block.

  Attributes:
    sd: half the variance of a difference within a block, its root.
    df: degrees of freedom.
  """

  sd: float
  df: float

  def error(self, seeds: int) -> float:
    """Standard error of a difference of two means."""
    return self.sd * math.sqrt(2 / seeds)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What a run says of a contrast.

  Attributes:
    contrast: what was declared.
    interval: of a - b, holding together with those of its family; one end of a
      one-sided contrast is infinite. `detectable` is the smallest difference
      that is found with 80% power.
    family: what was claimed about together.
    spreads: estimates of the standard deviation; the one that gives the widest
      interval counts.
  """

  contrast: Contrast
  interval: statistics.Interval
  family: multiplicity.Family
  spreads: tuple[Spread, ...]

  @property
  def p(self) -> float:
    """Adjusted for the family; NaN with one seed."""
    mean, seeds = self.interval.mean, self.interval.n
    towards = {
        multiplicity.BOTH: abs(mean),
        multiplicity.LOWER: -mean,
        multiplicity.HIGHER: mean,
    }[self.contrast.sided]
    return max(
        (
            self.family.error(_ratio(towards, spread.error(seeds)), spread.df)
            for spread in self.spreads
        ),
        default=math.nan,
    )

  @property
  def reading(self) -> str:
    """`NO_CLAIM`, `DIFFERENT`, `EQUAL` or `UNDECIDED`.

    Equality is that the whole interval lies within the margin (two one-sided
    tests, at the family's level); then a difference that is found beside it is
    one that was declared not to matter.
    """
    low, high, margin = self.interval.low, self.interval.high, self.margin
    if math.isnan(low):
      return NO_CLAIM
    if -margin < low and high < margin:
      return EQUAL
    return DIFFERENT if self.interval.excludes_zero else UNDECIDED

  @property
  def margin(self) -> float:
    """The declared margin, 0 without one."""
    return self.contrast.margin or 0.0

  @property
  def control_shown(self) -> bool:
    """Whether the expected direction is shown; False for one seed.

    Raises:
      ValueError: if the contrast is no positive control.
    """
    if not self.contrast.expected:
      raise ValueError(f'{self.contrast.name} is no positive control')
    if self.contrast.expected == multiplicity.LOWER:
      return self.interval.high < 0
    return self.interval.low > 0

  @property
  def method(self) -> str:
    """How the interval was made, for a caption."""
    text = self.family.method
    if len(self.spreads) > 1:
      text += ', guarded'
    return f'{text}, {len(self.family.sides)} contrasts'


def against(baseline: str, arms: Sequence[str], **fields) -> list[Contrast]:
  """Contrasts of each arm but the baseline with the baseline.

  Args:
    baseline: an arm.
    arms: all of them, in the order of the result.
    **fields: of every `Contrast`, such as its margin.

  Raises:
    ValueError: if the baseline is none of the arms.
  """
  if baseline not in arms:
    raise ValueError(f'{baseline} is no arm; arms: {list(arms)}')
  return [Contrast(arm, baseline, **fields) for arm in arms if arm != baseline]


def compare(
    values: Mapping[str, Mapping[int, float]],
    contrasts: Sequence[Contrast],
    level: float = 0.95,
    guard: bool = True,
) -> tuple[Comparison, ...]:
  """Analyses blocks, and reads the declared contrasts off them.

  Positive controls are a family of their own: they cost the claims nothing.

  Args:
    values: arm -> seed -> value; the same seeds for every arm. Arms that no
      contrast names count for the variance.
    contrasts: what was declared.
    level: of confidence, for all claims together.
    guard: whether many-to-one contrasts also stand against the variance of
      differences from the shared arm (see the module's text). Lists without a
      shared arm, and two arms, have no guard.

  Returns:
    A comparison for each contrast, in their order.

  Raises:
    ValueError: if blocks are not complete, values are not finite, contrasts
      name unknown arms or are declared twice.
  """
  table, arms = _table(values)
  unknown = {arm for c in contrasts for arm in (c.a, c.b)} - set(arms)
  if unknown:
    raise ValueError(f'{sorted(unknown)} are not arms; known: {arms}')
  results = {}
  for controls in (False, True):
    part = [c for c in contrasts if bool(c.expected) == controls]
    if part:
      results |= zip(
          part, _compare(table, arms, part, level, guard), strict=True
      )
  return tuple(results[contrast] for contrast in contrasts)


def pooled(values: Mapping[str, Mapping[int, float]]) -> Spread:
  """The variance that is left without arm and seed effects, over all arms.

  Raises:
    ValueError: if blocks are not complete, or there are not two arms and seeds.
  """
  table, _ = _table(values)
  if min(table.shape) < 2:
    raise ValueError(f'need two arms and seeds, got {table.shape}')
  return _pooled(table)


def seeds_needed(comparison: Comparison, difference: float) -> int | None:
  """Seeds by which a difference is found with 80% power.

  It takes the upper 80% bound of the standard deviation, not its estimate: that
  of a few seeds is too small half of the time.

  Args:
    comparison: of a run with the same arms and contrasts.
    difference: to be seen, of any sign but not 0.

  Returns:
    None if 1,000 do not do.

  Raises:
    ValueError: for a difference of 0 and for a run of one seed.
  """
  if not difference or math.isnan(comparison.interval.low):
    raise ValueError('need a difference that is not 0, and a run of two seeds')
  level = comparison.interval.level
  runs = comparison.interval.n

  def enough(seeds):
    for spread in comparison.spreads:
      low = stats.chi2.ppf(1 - _PLANNED, spread.df)
      bound = spread.sd * math.sqrt(spread.df / low)
      planned = Spread(bound, spread.df / (runs - 1) * (seeds - 1))
      critical = comparison.family.critical(planned.df, level)
      if _detectable(critical, planned, seeds) > abs(difference):
        return False
    return True

  if not enough(_MOST_SEEDS):
    return None
  low, high = 1, _MOST_SEEDS
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if enough(middle) else (middle, high)
  return high


def _table(values) -> tuple[Float[np.ndarray, 'A S'], list[str]]:
  arms = list(values)
  if not arms:
    raise ValueError('need arms')
  seeds = sorted(values[arms[0]])
  for arm in arms:
    if sorted(values[arm]) != seeds or not seeds:
      raise ValueError(
          f'blocks are not complete: {arms[0]} has seeds {seeds}, {arm}'
          f' {sorted(values[arm])}'
      )
  table = np.array([[values[a][s] for s in seeds] for a in arms], np.float64)
  if not np.isfinite(table).all():
    wrong = [arms[i] for i in np.flatnonzero(~np.isfinite(table).all(axis=1))]
    raise ValueError(f'values are not finite: {", ".join(wrong)}')
  return table, arms


def _compare(table, arms, contrasts, level, guard) -> list[Comparison]:
  """The comparisons of one family."""
  seeds = table.shape[1]
  pairs = [(c.a, c.b) for c in contrasts]
  sides = [c.sided for c in contrasts]
  if seeds == 1:
    family = multiplicity.family(pairs, sides, 1, level)
    spreads = ()
  else:
    pool = _pooled(table)
    family = multiplicity.family(pairs, sides, pool.df, level)
    spreads = (pool,)
    if guard and family.shared and len(arms) > 2:
      spreads += (_own(table, arms.index(family.shared)),)
  criticals = [family.critical(spread.df, level) for spread in spreads]
  reach = max(
      (
          t * spread.error(seeds)
          for t, spread in zip(criticals, spreads, strict=True)
      ),
      default=math.nan,
  )
  detectable = max(
      (
          _detectable(t, spread, seeds)
          for t, spread in zip(criticals, spreads, strict=True)
      ),
      default=math.nan,
  )
  means = dict(zip(arms, table.mean(axis=1), strict=True))
  return [
      _one(
          c,
          float(means[c.a] - means[c.b]),
          reach,
          detectable,
          family,
          spreads,
          seeds,
          level,
      )
      for c in contrasts
  ]


def _one(contrast, mean, reach, detectable, family, spreads, seeds, level):
  """The comparison of one contrast whose half-width is known."""
  low, high = mean - reach, mean + reach
  if contrast.sided == multiplicity.LOWER:
    low = -math.inf
  elif contrast.sided == multiplicity.HIGHER:
    high = math.inf
  if math.isnan(reach):
    low = high = math.nan
  interval = statistics.Interval(
      mean, low, high, seeds, level, detectable=detectable
  )
  return Comparison(contrast, interval, family, spreads)


def _ratio(difference, error) -> float:
  """t; arms that never vary differ surely or not at all."""
  if error > 0:
    return difference / error
  return math.copysign(1e9, difference) if difference else 0.0


def _pooled(table) -> Spread:
  arms, seeds = table.shape
  df = (arms - 1) * (seeds - 1)
  residuals = (
      table
      - table.mean(axis=1, keepdims=True)
      - table.mean(axis=0, keepdims=True)
      + table.mean()
  )
  return Spread(math.sqrt((residuals**2).sum() / df), df)


def _own(table, shared) -> Spread:
  """By differences from one arm: whatever that arm's variance is.

  The mean over the K others of the variance of (other - shared) is the sum of
  two independent parts: what the others vary among themselves, and what their
  mean varies from the shared arm. Satterthwaite's degrees of freedom.
  """
  others = np.delete(table, shared, axis=0)
  count, blocks = len(others), table.shape[1] - 1
  among = _pooled(others).sd ** 2 * (count - 1) / count
  between = np.var(others.mean(axis=0) - table[shared], ddof=1)
  total = among + between
  if total == 0:
    return Spread(0.0, blocks)
  df = total**2 / (among**2 / ((count - 1) * blocks) + between**2 / blocks)
  return Spread(math.sqrt(total / 2), float(df))


def _detectable(critical, spread, seeds) -> float:
  """The difference whose t passes the critical value with 80% power."""
  shift = special.nctdtrinc(spread.df, 1 - POWER, critical)
  return float(shift * spread.error(seeds))
