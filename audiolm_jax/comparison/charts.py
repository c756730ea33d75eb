"""Where a report's charts have their lines, marks and labels.

Positions only: the template draws them. Values that are not there (None, or not
finite) have no mark.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import math
from typing import Any

import numpy as np

# Room for a character where a narrow screen makes letters large.
_LETTER = 10
_WIDTH = 640


def curves(
    series: Mapping[str, Sequence[Sequence[float]]],
    bands: Mapping[str, Sequence[tuple[float, float, float]]],
    log_x: bool = False,
    height: int = 300,
) -> dict[str, Any]:
  """Where an SVG line chart has its lines, bands, ticks and grid.

  Args:
    series: name -> points (x, y); points that are not finite are left out.
    bands: name -> (x, low, high) of some of them; {} for none.
    log_x: whether x is spaced by its logarithm; points at or below 0 are then
      left out.
    height: of the SVG's view box, which is 640 wide.

  Returns:
    `width`, `height`, `box` (left, top, right, bottom), `x_ticks` and `y_ticks`
    as (position, label), and `lines` with `name`, `path`, `band` (a closed path
    or ''), `points` (position and labels, for the pointer).
  """
  kept = {n: _finite(p, log_x) for n, p in series.items()}
  edges = {n: _finite(p, log_x) for n, p in bands.items()}
  every = [p for points in kept.values() for p in points] or [(1, 0)]
  heights = [p[1] for p in every]
  heights += [y for points in edges.values() for p in points for y in p[1:]]
  x_ticks, x_range = (_log_ticks if log_x else _ticks)([p[0] for p in every], 6)
  y_ticks, y_range = _ticks(heights, 5, pad=0.05)
  box = _box(y_ticks, height)

  def place(x, y):
    x = math.log10(x) if log_x else x
    return (
        round(_scale(x, x_range, box[0], box[2]), 1),
        round(_scale(y, y_range, box[3], box[1]), 1),
    )

  return {
      'width': _WIDTH,
      'height': height,
      'box': box,
      'x_ticks': [
          (round(_scale(t, x_range, box[0], box[2]), 1), label)
          for t, label in x_ticks
      ],
      'y_ticks': [
          (round(_scale(t, y_range, box[3], box[1]), 1), label)
          for t, label in y_ticks
      ],
      'lines': [
          _line(name, points, edges.get(name, []), place)
          for name, points in kept.items()
      ],
  }


def forest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Where a forest plot has its marks, in percent of the plot's width.

  Args:
    rows: each with `mean`, `low`, `high` (None: no end there), `margin` and
      `detectable` (None: none).

  Returns:
    `zero`, `ticks` as (position, label), and `rows`: for each `mean`, `low`,
    `high` (None: no end there), `margin` as (left, width) or None, and `detectable`,
    the two positions or [].
  """
  values = [0.0]
  for row in rows:
    values += [row[k] for k in ('mean', 'low', 'high') if row[k] is not None]
    for name in ('margin', 'detectable'):
      values += [] if row[name] is None else [row[name], -row[name]]
  ticks, span = _ticks(values, 5, pad=0.06)

  def place(value):
    return None if value is None else round(_scale(value, span, 0, 100), 2)

  marks = []
  for row in rows:
    margin, detectable = row['margin'], row['detectable']
    band = margin and (place(-margin), place(margin) - place(-margin))
    ends = [] if detectable is None else [place(-detectable), place(detectable)]
    marks.append(
        {k: place(row[k]) for k in ('mean', 'low', 'high')}
        | {'margin': band, 'detectable': ends}
    )
  return {
      'zero': place(0.0),
      'ticks': [(place(t), label) for t, label in ticks],
      'rows': marks,
  }


def pareto(
    points: Sequence[Mapping[str, Any]],
    better: tuple[str, str],
    height: int = 400,
) -> dict[str, Any]:
  """Where a plot of two outcomes has its crosses, numbers and front.

  Args:
    points: each with `x` and `y`, both (mean, low, high); ends may be None.
    better: 'lower' or 'higher' of x and of y.
    height: of the SVG's view box, which is 640 wide.

  Returns:
    `width`, `height`, `box`, `x_ticks` and `y_ticks` as for `curves`; `points`,
    for each `at` and `cross` (x from, x to, y from, y to), `front` (whether no
    other point's means are better in one and as good in the other) and `label`,
    the middle of its number; `front`, the path through those that are.
  """
  ends = [[v for p in points for v in p[k] if v is not None] for k in 'xy']
  x_ticks, x_range = _ticks(ends[0], 5, pad=0.08)
  y_ticks, y_range = _ticks(ends[1], 5, pad=0.08)
  box = _box(y_ticks, height)

  def across(value):
    return round(_scale(value, x_range, box[0], box[2]), 1)

  def up(value):
    return round(_scale(value, y_range, box[3], box[1]), 1)

  best = front([(p['x'][0], p['y'][0]) for p in points], better)
  marks = []
  for point, is_best in zip(points, best, strict=True):
    (x, left, right), (y, low, high) = point['x'], point['y']
    marks.append(
        {
            'at': (across(x), up(y)),
            'cross': (
                across(x if left is None else left),
                across(x if right is None else right),
                up(y if low is None else low),
                up(y if high is None else high),
            ),
            'front': is_best,
        }
    )
  for mark, label in zip(marks, _labels(marks, box), strict=True):
    mark['label'] = label
  return {
      'width': _WIDTH,
      'height': height,
      'box': box,
      'x_ticks': [(across(t), label) for t, label in x_ticks],
      'y_ticks': [(up(t), label) for t, label in y_ticks],
      'points': marks,
      'front': _path(_steps(marks, better[0])),
  }


def front(
    points: Sequence[tuple[float, float]], better: tuple[str, str]
) -> list[bool]:
  """Whether no other point is as good in both values and better in one.

  Args:
    points: (x, y) of each.
    better: 'lower' or 'higher' of x and of y.

  Raises:
    ValueError: for another word.
  """
  if set(better) - {'lower', 'higher'}:
    raise ValueError(f"better is 'lower' or 'higher' of each, not {better}")
  signs = [1 if word == 'lower' else -1 for word in better]
  costs = [(signs[0] * x, signs[1] * y) for x, y in points]
  return [
      not any(a <= x and b <= y and (a, b) != (x, y) for a, b in costs)
      for x, y in costs
  ]


def _steps(marks, better) -> list[tuple[float, float]]:
  """Through the points of the front, left to right, with right angles."""
  corners = sorted(mark['at'] for mark in marks if mark['front'])
  path = corners[:1]
  for (_, before), (x, y) in itertools.pairwise(corners):
    # What a point excludes lies on its worse sides: the step turns there.
    turn = (x, before) if better == 'lower' else (path[-1][0], y)
    path += [turn, (x, y)]
  return path


def thin(
    points: Sequence[tuple[float, ...]], limit: int = 400
) -> list[tuple[float, ...]]:
  """At most `limit` points: means of runs of neighbours."""
  if len(points) <= limit:
    return [tuple(map(float, p)) for p in points]
  parts = np.array_split(np.asarray(points, np.float64), limit)
  return [tuple(part.mean(axis=0).tolist()) for part in parts]


def _line(name, points, edges, place) -> dict[str, Any]:
  """A line of `curves` with its band."""
  ends = {x: (low, high) for x, low, high in edges}
  low = [place(x, y) for x, (y, _) in ends.items()]
  high = [place(x, y) for x, (_, y) in ends.items()]
  labels = [
      f'{y:.4g}' + (' [{:.4g}, {:.4g}]'.format(*ends[x]) if x in ends else '')
      for x, y in points
  ]
  return {
      'name': name,
      'path': _path([place(*p) for p in points]),
      'band': _path(low + high[::-1]) + 'Z' if len(ends) > 1 else '',
      'points': [
          [*place(x, y), f'{x:g}', label]
          for (x, y), label in zip(points, labels, strict=True)
      ],
  }


def _labels(marks, box) -> list[tuple[float, float]]:
  """For each point the nearest middle for its number that is not taken."""
  reach, taken, labels = 11.0, [mark['at'] for mark in marks], []
  for mark in marks:
    x, y = mark['at']
    tries = [
        (x + radius * math.cos(angle), y + radius * math.sin(angle))
        for radius in (18, 26, 36, 48, 62, 80)
        for angle in np.linspace(-math.pi / 4, 7 * math.pi / 4, 17)[:-1]
    ]
    inside = [
        (a, b)
        for a, b in tries
        if box[0] + reach < a < box[2] - reach
        and box[1] + reach < b < box[3] - reach
    ] or tries
    free = (
        at
        for at in inside
        if all(math.dist(at, other) > 1.7 * reach for other in taken)
    )
    at = next(free, inside[-1])
    taken.append(at)
    labels.append((round(at[0], 1), round(at[1], 1)))
  return labels


def _box(y_ticks, height) -> tuple[int, int, int, int]:
  longest = max((len(label) for _, label in y_ticks), default=1)
  return 12 + _LETTER * longest, 10, _WIDTH - 12, height - 28


def _path(at) -> str:
  return 'M' + 'L'.join(f'{x} {y}' for x, y in at) if at else ''


def _finite(points, positive) -> list[tuple[float, ...]]:
  return [
      tuple(p)
      for p in points
      if all(map(math.isfinite, p)) and (p[0] > 0 or not positive)
  ]


def _scale(value, source, low, high) -> float:
  return low + (value - source[0]) / (source[1] - source[0]) * (high - low)


def _ticks(values, count, pad=0.0):
  """Round tick values with labels within the range of `values`, and that."""
  low, high = min(values, default=0.0), max(values, default=1.0)
  if low == high:
    low, high = low - 0.5, high + 0.5
  low, high = low - pad * (high - low), high + pad * (high - low)
  rough = (high - low) / count
  unit = 10 ** math.floor(math.log10(rough))
  step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
  first, last = math.ceil(low / step), math.floor(high / step)
  ticks = [float(f'{i * step:.10g}') for i in range(first, last + 1)]
  return [(tick, f'{tick:g}') for tick in ticks], (low, high)


def _log_ticks(values, count):
  """Some of the values themselves, or powers of ten, by their logarithms."""
  points = sorted(set(values))
  low, high = math.log10(points[0]), math.log10(points[-1])
  if low == high:
    low, high = low - 0.5, high + 0.5
  if len(points) > 2 * count:
    powers = [10.0**n for n in range(math.ceil(low), math.floor(high) + 1)]
    points = powers if len(powers) > 1 else [points[0], points[-1]]
  step = -(-len(points) // count)
  ticks = [(math.log10(p), f'{p:g}') for p in points[::step]]
  return ticks, (low, high)
