"""Curves as outcomes: a value against N, steps, FLOPs, position or length.

A curve is measured at the same points for every arm and seed. Contrasts of
curves are contrasts of a value at points chosen before the run, or of the mean
height over a range (`blocks`). Fits are made anew for each seed, and their
intervals are over seeds.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math

from jaxtyping import Float
import numpy as np
from scipy import optimize
from scipy import stats

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import statistics

_GRID = 61


@dataclasses.dataclass(frozen=True)
class Curves:
  """Values of arms and seeds at common points.

  Attributes:
    x: the points, ascending.
    values: arm -> seed -> a value at each point.
  """

  x: tuple[float, ...]
  values: Mapping[str, Mapping[int, Float[np.ndarray, 'N']]]

  def at(self, x: float) -> dict[str, dict[int, float]]:
    """arm -> seed -> value at a point.

    Raises:
      ValueError: if nothing was measured there: nothing is interpolated.
    """
    if x not in self.x:
      raise ValueError(f'nothing was measured at {x:g}, only at {self.x}')
    index = self.x.index(x)
    return {
        arm: {seed: float(y[index]) for seed, y in seeds.items()}
        for arm, seeds in self.values.items()
    }

  def height(
      self, low: float, high: float, log: bool = False
  ) -> dict[str, dict[int, float]]:
    """arm -> seed -> area under the curve by trapezoids, over the range's width.

    Args:
      low: where the range begins, a measured point.
      high: where it ends, another.
      log: whether area and width are over log x.

    Raises:
      ValueError: if an end was not measured, they are not in order, or log x is
        asked for at x <= 0.
    """
    if low not in self.x or high not in self.x or low >= high:
      raise ValueError(
          f'the range {low:g} to {high:g} must begin and end at measured points'
          f' in order: {self.x}'
      )
    part = slice(self.x.index(low), self.x.index(high) + 1)
    x = _logarithm(self.x[part]) if log else np.array(self.x[part])
    return {
        arm: {
            seed: float(np.trapezoid(y[part], x) / (x[-1] - x[0]))
            for seed, y in seeds.items()
        }
        for arm, seeds in self.values.items()
    }

  def bands(
      self, level: float = 0.95
  ) -> dict[str, list[tuple[float, float, float, float]]]:
    """arm -> (x, mean, low, high) by the pooled variance at each point.

    What a seed does to all arms alike is taken away, as in contrasts: a band
    says where an arm's mean lies among these arms, not where another seed would
    put it. One arm alone has t-intervals. Each point's band stands for itself.

    Args:
      level: of confidence at each point.

    Returns:
      Bands; with one seed their ends are NaN.
    """
    bands = {arm: [] for arm in self.values}
    for x in self.x:
      values = self.at(x)
      alone = {
          arm: statistics.t_interval(list(seeds.values()), level)
          for arm, seeds in values.items()
      }
      reach = None
      if len(values) > 1 and alone[next(iter(values))].n > 1:
        spread = blocks.pooled(values)
        t = stats.t.ppf(0.5 + level / 2, spread.df)
        reach = t * spread.sd / math.sqrt(alone[next(iter(values))].n)
      for arm, each in alone.items():
        low, high = (
            (each.low, each.high)
            if reach is None
            else (each.mean - reach, each.mean + reach)
        )
        bands[arm].append((x, each.mean, float(low), float(high)))
    return bands


def curves(
    points: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]],
) -> Curves:
  """Arms' measured points, checked to be the same for all.

  Args:
    points: arm -> seed -> (x, value) in any order.

  Raises:
    ValueError: naming an arm and seed whose points are not those of the first,
      come twice or are not finite, or an arm with other seeds.
  """
  if not points or not all(points.values()):
    raise ValueError('need arms, and seeds of each')
  first = next(iter(points))
  seeds = sorted(points[first])
  common = sorted(x for x, _ in points[first][seeds[0]])
  values = {}
  for arm, runs in points.items():
    if sorted(runs) != seeds:
      raise ValueError(
          f'{first} has seeds {seeds}, but {arm} has {sorted(runs)}'
      )
    values[arm] = {}
    for seed, run in runs.items():
      x, y = np.array(sorted(run), np.float64).reshape(-1, 2).T
      where = f'{arm}, seed {seed}'
      if list(x) != common:
        raise ValueError(
            f'{where} was measured at {list(map(float, x))}, but {first}, seed'
            f' {seeds[0]} at {common}'
        )
      if len(set(common)) != len(common) or not common:
        raise ValueError(f'{where} needs points, each once: {common}')
      if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ValueError(f'{where} has points that are not finite: {run}')
      values[arm][seed] = y
  return Curves(tuple(map(float, common)), values)


def compare_at(
    measured: Curves,
    x: Sequence[float],
    contrasts: Sequence[blocks.Contrast],
    level: float = 0.95,
    guard: bool = True,
) -> dict[float, tuple[blocks.Comparison, ...]]:
  """Contrasts of curves at points chosen before the run, claimed together.

  The error is shared evenly between points (Bonferroni), and within each point
  as `blocks.compare` shares it.

  Args:
    measured: the curves.
    x: the points.
    contrasts: what was declared.
    level: of confidence, for all claims at all points together.
    guard: see `blocks.compare`.

  Raises:
    ValueError: without points, and where nothing was measured.
  """
  if not x or len(set(x)) != len(x):
    raise ValueError(f'need points to compare at, each once; got {list(x)}')
  each = 1 - (1 - level) / len(x)
  return {
      point: blocks.compare(measured.at(point), contrasts, each, guard)
      for point in x
  }


@dataclasses.dataclass(frozen=True)
class Fit:
  """A law fitted to each seed of an arm.

  Attributes:
    names: of the parameters.
    parameters: seed -> values of the parameters.
    law: (x, parameters) -> value.
    residual: root of the mean square that the seeds' fits leave.
    at_bounds: 'seed 0: c = 3' for each parameter that ended at a bound, which
      then is no estimate.
    level: of confidence of all intervals.
  """

  names: tuple[str, ...]
  parameters: Mapping[int, tuple[float, ...]]
  law: Callable[[float, tuple[float, ...]], float]
  residual: float
  at_bounds: tuple[str, ...]
  level: float

  def parameter(self, name: str) -> statistics.Interval:
    """The t-interval over seeds of a parameter."""
    index = self.names.index(name)
    values = [each[index] for each in self.parameters.values()]
    return statistics.t_interval(values, self.level)

  def predict(self, x: float) -> statistics.Interval:
    """The t-interval over seeds of the fitted value at a point."""
    values = [self.law(x, each) for each in self.parameters.values()]
    return statistics.t_interval(values, self.level)


_FREE = (-math.inf, math.inf)


def power_law(
    measured: Curves,
    arm: str,
    *,
    a: tuple[float, float] = _FREE,
    b: tuple[float, float] = _FREE,
    c: tuple[float, float] = (0.01, 4.0),
    level: float = 0.95,
) -> Fit:
  """Least squares of a + b x^-c: the best c on a grid and between its points.

  Args:
    measured: the curves, at four points or more, all above 0.
    arm: whose curve.
    a: bounds of what is left at infinite x (a known entropy, for losses).
    b: bounds of what there is to gain at x = 1.
    c: bounds of the exponent, above 0.
    level: of confidence.

  Raises:
    ValueError: for fewer points than four, points at or below 0, or bounds that
      are not in order.
  """
  x = _points(measured, arm, 4)
  if not all(low < high for low, high in (a, b, c)) or c[0] <= 0:
    raise ValueError(f'bounds must be in order, c above 0: {a}, {b}, {c}')
  parameters, squares, at_bounds = {}, [], []
  for seed, y in measured.values[arm].items():
    square, parameters[seed] = _power_law(x, y, a, b, c)
    squares.append(square)
    for name, value, bounds in zip(
        'abc', parameters[seed], (a, b, c), strict=True
    ):
      if any(math.isclose(value, end, rel_tol=1e-3) for end in bounds):
        at_bounds.append(f'seed {seed}: {name} = {value:.4g}')
  return Fit(
      ('a', 'b', 'c'),
      parameters,
      lambda at, p: p[0] + p[1] * at ** -p[2],
      math.sqrt(np.mean(squares)),
      tuple(at_bounds),
      level,
  )


def _power_law(x, y, a, b, c) -> tuple[float, tuple[float, float, float]]:
  """(mean square that is left, parameters) within the bounds of each."""
  logs = _logarithm(x)
  centre = logs.mean()
  grid = np.geomspace(*c, _GRID)

  def linear(exponent):
    # Around the middle of log x, where a and b are least alike.
    scale = math.exp(exponent * centre)
    design = np.stack([np.ones_like(x), np.exp(-exponent * (logs - centre))], 1)
    low, high = (a[0], b[0] / scale), (a[1], b[1] / scale)
    best, *_ = np.linalg.lstsq(design, y, rcond=None)
    if (best < low).any() or (best > high).any():
      best = optimize.lsq_linear(design, y, (low, high)).x
    return float(np.mean((y - design @ best) ** 2)), best * (1, scale)

  near = int(np.argmin([linear(exponent)[0] for exponent in grid]))
  minimum = optimize.minimize_scalar(
      lambda exponent: linear(exponent)[0],
      bounds=(grid[max(near - 1, 0)], grid[min(near + 1, _GRID - 1)]),
      method='bounded',
      options={'xatol': 1e-10},
  )
  exponent = min(minimum.x, grid[near], key=lambda each: linear(each)[0])
  square, (first, second) = linear(exponent)
  return square, (float(first), float(second), float(exponent))


def log_linear(measured: Curves, arm: str, level: float = 0.95) -> Fit:
  """Least squares of a + b log2 x: b is what a doubling of x changes.

  Args:
    measured: the curves, at three points or more, all above 0.
    arm: whose curve.
    level: of confidence.

  Raises:
    ValueError: for fewer points than three, or points at or below 0.
  """
  x = _points(measured, arm, 3)
  logs = _logarithm(x) / math.log(2)
  parameters, squares = {}, []
  for seed, y in measured.values[arm].items():
    slope, start = np.polyfit(logs, y, 1)
    parameters[seed] = (float(start), float(slope))
    squares.append(np.mean((y - start - slope * logs) ** 2))
  return Fit(
      ('a', 'b'),
      parameters,
      lambda at, p: p[0] + p[1] * math.log2(at),
      math.sqrt(np.mean(squares)),
      (),
      level,
  )


def _points(measured, arm, least) -> Float[np.ndarray, 'N']:
  if arm not in measured.values:
    raise ValueError(f'{arm} is no arm; arms: {list(measured.values)}')
  if len(measured.x) < least:
    raise ValueError(
        f'the fit needs {least} points or more, there are {len(measured.x)}'
    )
  return np.array(measured.x)


def _logarithm(x) -> Float[np.ndarray, 'N']:
  if min(x) <= 0:
    raise ValueError(f'log x needs points above 0, got {min(x):g}')
  return np.log(np.asarray(x, np.float64))
