"""How far t must lie from 0 so that a whole family of contrasts is safe.

A family is the contrasts that one question declares. Its error is the chance
that any of them is claimed where no arm differs from another. Which bound is
used follows from the contrasts alone, never from the values:

- one contrast: Student's t;
- all share one arm (many-to-one): Dunnett's, by integration; exact for arms of
  equal variance and size, one-sided and two-sided contrasts together (Dunnett
  1955, 1964);
- other lists: the smaller of Tukey's studentised range over the arms that occur
  (exact for all pairs) and Sidak's inequality (which holds for two-sided t
  statistics of any correlation with a common variance), or Bonferroni's where a
  contrast is one-sided.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math

import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats

BOTH, LOWER, HIGHER = 'both', 'lower', 'higher'
SIDES = (BOTH, LOWER, HIGHER)
STUDENT, DUNNETT, TUKEY = 'Student', 'Dunnett', 'Tukey'
SIDAK, BONFERRONI = 'Sidak', 'Bonferroni'
_NODES = 64


@dataclasses.dataclass(frozen=True)
class Family:
  """Contrasts that are claimed about together.

  Attributes:
    method: one of the bounds in this module's text.
    sides: of each contrast: `BOTH`, or the only direction that may be claimed.
      For Dunnett's, the direction of the arm that is not shared.
    arms: that occur in it.
    shared: the arm of all contrasts in Dunnett's, else ''.
  """

  method: str
  sides: tuple[str, ...]
  arms: int
  shared: str = ''

  def error(self, t: float, df: float) -> float:
    """The chance that any contrast's statistic is claimed beyond t, if null.

    At an observed t (towards the claim) it is the contrast's adjusted p.

    Args:
      t: the bound; below 0 only where all contrasts are one-sided.
      df: degrees of freedom of the common variance.
    """
    if self.method == DUNNETT:
      return _dunnett_error(t, df, self.sides)
    if self.method == TUKEY:
      q = math.sqrt(2) * max(t, 0.0)
      return float(stats.studentized_range.sf(q, self.arms, df))
    each = [_tail(t, df, side) for side in self.sides]
    if self.method == SIDAK:
      # 1 - prod(1 - p) without cancellation.
      return -math.expm1(sum(math.log1p(-min(p, 1 - 1e-16)) for p in each))
    return min(1.0, sum(each))

  def critical(self, df: float, level: float) -> float:
    """The t beyond which contrasts are claimed, with error 1 - level."""
    if self.method == TUKEY:
      q = stats.studentized_range.ppf(level, self.arms, df)
      return float(q / math.sqrt(2))

    # Between one one-sided contrast and Bonferroni's, with room for rounding.
    alpha = 1 - level
    low = float(stats.t.isf(alpha, df))
    high = float(stats.t.isf(alpha / (2 * len(self.sides)), df))
    return optimize.brentq(
        lambda t: self.error(t, df) - alpha, 0.99 * low, 1.01 * high, xtol=1e-9
    )


def family(
    pairs: Sequence[tuple[str, str]],
    sides: Sequence[str],
    df: float,
    level: float,
) -> Family:
  """The family of contrasts a - b, with the tightest bound that holds for it.

  Args:
    pairs: (a, b) of each contrast, each pair of arms once.
    sides: of each contrast: `BOTH`, `LOWER` or `HIGHER` for a - b.
    df: degrees of freedom of the common variance.
    level: of confidence, of all intervals together.

  Raises:
    ValueError: without contrasts, for an arm against itself, a pair that comes
      twice, or a side that there is not.
  """
  if not pairs or len({frozenset(pair) for pair in pairs}) != len(pairs):
    raise ValueError(f'need contrasts, each pair of arms once; got {pairs}')
  if any(a == b for a, b in pairs):
    raise ValueError(f'an arm stands against itself in {pairs}')
  if set(sides) - set(SIDES):
    raise ValueError(f'sides must be of {SIDES}, got {tuple(sides)}')
  sides, arms = tuple(sides), len({arm for pair in pairs for arm in pair})
  if len(pairs) == 1:
    return Family(STUDENT, sides, arms)
  shared = set.intersection(*[set(pair) for pair in pairs])
  if shared:
    (arm,) = shared
    seen = tuple(
        side if b == arm else _MIRRORED[side]
        for (_, b), side in zip(pairs, sides, strict=True)
    )
    return Family(DUNNETT, seen, arms, arm)
  two_sided = set(sides) == {BOTH}
  candidates = [
      Family(TUKEY, sides, arms),
      Family(SIDAK if two_sided else BONFERRONI, sides, arms),
  ]
  return min(candidates, key=lambda each: each.critical(df, level))


_MIRRORED = {BOTH: BOTH, LOWER: HIGHER, HIGHER: LOWER}


def _tail(t, df, side) -> float:
  tail = float(stats.t.sf(t, df))
  return tail if side != BOTH else min(1.0, 2 * tail)


def _dunnett_error(t, df, sides) -> float:
  """1 - P(no claim), over the shared arm's mean z and the common sd s.

  Given both, the arms are independent: y - z must not pass sqrt(2) t s.
  """
  z, z_weights, u_weights = _nodes()
  reach = math.sqrt(2) * t * _scales(df)[:, None]
  below, above = special.ndtr(z + reach), special.ndtr(z - reach)
  kept = np.clip(below - above, 0, None) ** sides.count(BOTH)
  kept = kept * below ** sides.count(HIGHER)
  kept = kept * (1 - above) ** sides.count(LOWER)
  return float(np.clip(1 - u_weights @ kept @ z_weights, 0, 1))


@functools.cache
def _nodes():
  """Nodes and weights for a standard normal, weights for a uniform variable."""
  z, z_weights = np.polynomial.hermite_e.hermegauss(_NODES)
  _, u_weights = np.polynomial.legendre.leggauss(_NODES)
  return z, z_weights / z_weights.sum(), u_weights / 2


@functools.lru_cache(maxsize=256)
def _scales(df):
  """Quantiles of an estimated over a true standard deviation at the nodes."""
  u, _ = np.polynomial.legendre.leggauss(_NODES)
  return np.sqrt(special.chdtri(df, (1 - u) / 2) / df)
