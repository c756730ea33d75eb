"""Curves as outcomes: what they are, and what finished stages say of them.

A curve is what `Question.test` gives as one (bits by position), what another
stage gives (a loss by training step), or an outcome spread over arms that stand
at different x (a gain against the number of examples). The statistics are
`comparison.trends`'.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, Literal

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import trends
from audiolm_jax.comparison import verdicts

# What a fit of a declared name is made by.
FITS = {'power_law': trends.power_law, 'log_linear': trends.log_linear}
# line -> seed -> points.
Points = Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]


class CurveError(ValueError):
  """A curve that can't be what it is declared to be."""


@dataclasses.dataclass(frozen=True)
class Curve:
  """An outcome that is a curve; its lines are arms, or go through arms.

  Attributes:
    name: of the outcome, such as 'gain by examples'.
    source: the curve of the result of `Question.test`, such as
      'eval/test/bits_per_frame by frame'; with `along`, a metric of it.
    x: what it is against, with its unit.
    unit: of its values.
    description: one line for the report.
    along: arm -> (line, x), where each arm is a point of a line: x is a number,
      or a budget of the arm such as 'generation_flops'. Empty where each arm has
      a curve of its own.
    log_x: whether x is spaced by its logarithm; all x are then above 0.
    at: points chosen before the run, at which lines are compared with the first
      line, claimed together. Empty for a picture that claims nothing.
    fit: a law to fit to each line.
    margin: differences smaller than this are none; fixed before the run.
    of: the arms that have it, where others do not; empty for all.
  """

  name: str
  source: str
  x: str
  unit: str
  description: str = ''
  along: Mapping[str, tuple[str, float | str]] = dataclasses.field(
      default_factory=dict
  )
  log_x: bool = False
  at: tuple[float, ...] = ()
  fit: Literal['power_law', 'log_linear'] | None = None
  margin: float | None = None
  of: tuple[str, ...] = ()

  def __post_init__(self):
    if self.fit is not None and self.fit not in FITS:
      raise CurveError(
          f'{self.name}: fit = {self.fit!r}: expected one of {sorted(FITS)}'
      )
    # Where x is a budget, arms of one line may share its name.
    places = [p for p in self.along.values() if not isinstance(p[1], str)]
    if len(set(places)) != len(places):
      raise CurveError(
          f'{self.name}: two arms are one point of one line: {places}'
      )


def undeclared(
    declared: Sequence[Curve], measured: Mapping[str, Mapping[int, Any]]
) -> list[Curve]:
  """Curves that tests gave beside the declared ones: pictures, no claims.

  Args:
    declared: of the question.
    measured: arm -> seed -> facts of its test.
  """
  known = {curve.source for curve in declared if not curve.along}
  names: dict[str, list[float]] = {}
  arms: dict[str, dict[str, None]] = {}
  for arm, seeds in measured.items():
    for facts in seeds.values():
      for name, points in facts['result'].get('curves', {}).items():
        if points:
          names.setdefault(name, []).extend(x for x, _ in points)
          arms.setdefault(name, {})[arm] = None
  found = []
  for name, x in sorted(names.items()):
    if name not in known:
      what, _, against = name.rpartition(' by ')
      log = min(x) > 0 and max(x) >= 16 * min(x)
      unit = (what or name).rpartition('/')[2].replace('_', ' ')
      found.append(
          Curve(
              name, name, against or 'x', unit, log_x=log, of=tuple(arms[name])
          )
      )
  return found


def points_of(
    curve: Curve,
    measured: Mapping[str, Mapping[int, Any]],
    budgets: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[int, list[tuple[float, float]]]]:
  """line -> seed -> points, of what has finished.

  Args:
    curve: what to look for.
    measured: arm -> seed -> facts of its test.
    budgets: arm -> what it spends, by name.

  Raises:
    CurveError: for a result that lacks what the curve is made of, while it has
      others; results from before evaluators gave curves have none at all, and
      count as missing.
  """
  lines: dict[str, dict[int, list[tuple[float, float]]]] = {}
  for arm, seeds in measured.items():
    if curve.of and arm not in curve.of:
      continue
    for seed, facts in seeds.items():
      if curve.along:
        if arm in curve.along:
          line, x = curve.along[arm]
          x = _place(curve, arm, x, budgets)
          value = _get(curve, arm, facts['result']['metrics'])
          lines.setdefault(line, {}).setdefault(seed, []).append((x, value))
      elif facts['result'].get('curves'):
        found = _get(curve, arm, facts['result']['curves'])
        lines.setdefault(arm, {})[seed] = sorted(map(tuple, found))
  return lines


def _place(curve, arm, x, budgets) -> float:
  """Where an arm stands: a number, or a budget of it."""
  if not isinstance(x, str):
    return float(x)
  if x not in budgets[arm]:
    raise CurveError(
        f'{curve.name}: {arm} has no budget {x!r}: {sorted(budgets[arm])}'
    )
  return float(budgets[arm][x])


def _get(curve, arm, values):
  if curve.source not in values:
    raise CurveError(
        f'{curve.name}: no {curve.source!r} in what the test of {arm} gives:'
        f' {sorted(values)}'
    )
  return values[curve.source]


def summary(curve: Curve, lines: Points, seeds: int, size: int) -> dict:
  """What a question's results hold of a curve, as JSON values.

  Lines without all their seeds and points are left out of bands, fits and
  claims.

  Args:
    curve: what is asked.
    lines: of `points_of`.
    seeds: how many of each arm.
    size: how many arms (or points of lines) there are to be.
  """
  have = sum(
      len(points) if curve.along else 1
      for runs in lines.values()
      for points in runs.values()
  )
  whole = {
      line: {seed: sorted(points) for seed, points in runs.items()}
      for line, runs in lines.items()
      if len(runs) == seeds and _is_whole(curve, line, runs)
  }
  together = _together(whole)
  return {
      'name': curve.name,
      'x': curve.x,
      'unit': curve.unit,
      'description': curve.description,
      'log_x': curve.log_x,
      'missing': seeds * size - have,
      'points': {
          line: {
              str(seed): [list(p) for p in sorted(points)]
              for seed, points in sorted(runs.items())
          }
          for line, runs in lines.items()
      },
      'bands': {
          line: [[_finite(v) for v in point] for point in band]
          for each in together
          for line, band in each.bands().items()
      },
      'fits': _fits(curve, together),
      'comparisons': _compare(curve, whole, together),
  }


def _is_whole(curve, line, runs) -> bool:
  """Whether each seed of a line has all its points."""
  if not curve.along:
    return True
  size = sum(name == line for name, _ in curve.along.values())
  return all(len(points) == size for points in runs.values())


def _together(whole) -> list[trends.Curves]:
  """Lines with the same x as one, whose variance is pooled; else each alone."""
  groups: dict[tuple, dict] = {}
  for line, runs in whole.items():
    first = next(iter(runs.values()))
    groups.setdefault(tuple(x for x, _ in first), {})[line] = runs
  return [trends.curves(group) for group in groups.values()]


def _fits(curve, together) -> dict[str, Any]:
  """line -> law, parameters with intervals over seeds, and the drawn line."""
  if curve.fit is None:
    return {}
  fits = {}
  for each in together:
    for line in each.values:
      try:
        fit = FITS[curve.fit](each, line)
      except ValueError as error:
        raise CurveError(f'{curve.name}: {error}') from error
      intervals = {name: fit.parameter(name) for name in fit.names}
      fits[line] = {
          'law': curve.fit,
          'parameters': {
              name: [i.mean, _finite(i.low), _finite(i.high)]
              for name, i in intervals.items()
          },
          'residual': fit.residual,
          'at_bounds': list(fit.at_bounds),
          'line': [[x, fit.predict(x).mean] for x in _between(each.x)],
      }
  return fits


def _between(x, count: int = 41) -> list[float]:
  """Points from the first to the last, evenly spaced in log x."""
  low, high = math.log(x[0]), math.log(x[-1])
  return [math.exp(low + (high - low) * i / (count - 1)) for i in range(count)]


def _compare(curve, whole, together) -> list[dict[str, Any]]:
  """Lines against the first one at the chosen points, claimed together."""
  if not curve.at or len(whole) < 2:
    return []
  if len(together) > 1:
    raise CurveError(
        f'{curve.name}: its lines were measured at different {curve.x}, so that'
        f' they cannot be compared at {curve.at}'
    )
  (each,) = together
  first, *others = each.values
  contrasts = [blocks.Contrast(o, first, margin=curve.margin) for o in others]
  lines = []
  for x, made in trends.compare_at(each, curve.at, contrasts).items():
    said = verdicts.verdicts(made, curve.unit)
    for comparison, text in zip(made, said, strict=True):
      interval = comparison.interval
      lines.append(
          {
              'x': x,
              'a': comparison.contrast.a,
              'b': comparison.contrast.b,
              'mean': interval.mean,
              'low': _finite(interval.low),
              'high': _finite(interval.high),
              'reading': comparison.reading,
              'says': text,
          }
      )
  return lines


def _finite(value: float) -> float | None:
  """JSON has no infinity."""
  return value if math.isfinite(value) else None
