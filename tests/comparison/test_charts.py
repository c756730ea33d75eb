"""Where charts have their marks, and what the report makes of them."""

import itertools
import math

import numpy as np
import pytest

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import charts
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics

NASTY = '<b>"bits" & \'more\'</b>'


def row(mean, low, high, margin=None, detectable=None):
  return {
      'mean': mean,
      'low': low,
      'high': high,
      'margin': margin,
      'detectable': detectable,
  }


def test_forest_marks_are_linear_and_within():
  chart = charts.forest(
      [
          row(1.0, 0.5, 1.5, 0.25, 0.5),
          row(-1.0, None, 0.0),
          row(0.0, None, None),
      ]
  )
  first, second, third = chart['rows']
  unit = (first['mean'] - chart['zero']) / 1.0
  assert first['high'] - first['low'] == pytest.approx(unit, abs=0.02)
  assert chart['zero'] - second['mean'] == pytest.approx(unit, abs=0.02)
  left, width = first['margin']
  assert width == pytest.approx(unit / 2, abs=0.02)
  assert left + width / 2 == pytest.approx(chart['zero'], abs=0.02)
  assert np.ptp(first['detectable']) == pytest.approx(unit, abs=0.02)
  assert second['low'] is None and second['margin'] is None
  assert third['mean'] == chart['zero'] and second['detectable'] == []
  for place, label in chart['ticks']:
    assert place == pytest.approx(chart['zero'] + unit * float(label), abs=0.05)
    assert 0 <= place <= 100


def test_the_front_is_what_nothing_beats():
  points = [(1, 5), (2, 2), (3, 3), (5, 1), (2, 2), (5, 2)]
  assert charts.front(points, ('lower', 'lower')) == [
      True,
      True,
      False,
      True,
      True,
      False,
  ]
  assert charts.front(points, ('higher', 'higher')) == [
      True,
      False,
      True,
      False,
      False,
      True,
  ]
  with pytest.raises(ValueError, match='better is'):
    charts.front(points, ('less', 'lower'))


@pytest.mark.parametrize(
    'better', itertools.product(('lower', 'higher'), repeat=2)
)
def test_no_arm_lies_on_the_better_side_of_the_front(better):
  rng = np.random.default_rng(0)
  points = [
      {'x': (x, None, None), 'y': (y, None, None)}
      for x, y in rng.standard_normal((12, 2))
  ]
  chart = charts.pareto(points, better)
  path = [tuple(map(float, at.split())) for at in chart['front'][1:].split('L')]
  for (x, y), (x2, y2) in itertools.pairwise(path):
    assert x == x2 or y == y2  # Steps.
  for i in range(0, len(path) - 2, 2):
    # A turn is as bad as both ends in one value: not better than either.
    turn, ends = path[i + 1], (path[i], path[i + 2])
    worst_x = (max if better[0] == 'lower' else min)(x for x, _ in ends)
    # Downwards in the picture is lower.
    worst_y = (min if better[1] == 'lower' else max)(y for _, y in ends)
    assert turn == (worst_x, worst_y)
  assert sum(p['front'] for p in chart['points']) == (len(path) + 1) // 2


def test_numbers_do_not_cover_each_other():
  rng = np.random.default_rng(1)
  points = [
      {'x': (x, x - 1, x + 1), 'y': (y, None, y + 1)}
      for x, y in 0.4 * rng.standard_normal((14, 2))
  ]
  chart = charts.pareto(points, ('lower', 'higher'))
  labels = [point['label'] for point in chart['points']]
  for a, b in itertools.combinations(labels, 2):
    assert math.dist(a, b) > 18
  left, top, right, bottom = chart['box']
  for x, y in labels:
    assert left < x < right and top < y < bottom


def test_log_x_spaces_by_ratio_and_bands_close():
  points = [(1.0, 3.0), (4.0, 2.0), (16.0, 1.0)]
  chart = charts.curves(
      {'a': points},
      {'a': [(x, y - 1, y + 1) for x, y in points]},
      log_x=True,
  )
  (line,) = chart['lines']
  xs = [point[0] for point in line['points']]
  assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
  assert [label for _, label in chart['x_ticks']] == ['1', '4', '16']
  assert line['points'][0][2:] == ['1', '3 [2, 4]']
  assert line['band'].endswith('Z') and line['band'].count('L') == 5
  top, bottom = chart['box'][1], chart['box'][3]
  heights = [float(at.split()[1]) for at in line['band'][1:-1].split('L')]
  assert top < min(heights) and max(heights) < bottom
  many = charts.curves({'a': [(2.0**n, n) for n in range(20)]}, {}, log_x=True)
  assert [label for _, label in many['x_ticks']] == [
      '1', '10', '100', '1000', '10000', '100000'
  ]  # fmt: skip


def test_a_report_of_all_charts(tmp_path):
  rng = np.random.default_rng(2)
  values = {
      name: dict(enumerate(rng.standard_normal(3)))
      for name in ('base', NASTY, 'c', 'd')
  }
  contrasts = [
      blocks.Contrast(NASTY, 'base', margin=9.0),
      blocks.Contrast('c', 'base', sided='lower'),
      blocks.Contrast('d', 'base', expected='higher'),
  ]
  page = report_lib.Report('x')
  page.add_forest('s', blocks.compare(values, contrasts), NASTY, NASTY, 'bits')
  one = {name: {0: seeds[0]} for name, seeds in values.items()}
  page.add_forest('s', blocks.compare(one, contrasts))
  pair = [statistics.t_interval(list(values['c'].values()))] * 2
  page.add_pareto('s', {NASTY: pair, 'b': pair}, NASTY, 'y', caption=NASTY)
  page.add_curves(
      's',
      {NASTY: [(1, 2.0), (2, 3.0)]},
      bands={NASTY: [(1, 1.0, 3.0), (2, 2.0, 4.0)]},
      log_x=True,
  )
  path = tmp_path / 'r.html'
  page.write(path)
  text = path.read_text()
  assert NASTY not in text and '&lt;b&gt;' in text
  assert 'positive control NOT found' in text and 'one seed: no claim' in text
  assert text.count('class="band') == 1 and text.count('<circle') == 10
  again = report_lib.Report.read(path)
  again.write(tmp_path / 'again.html')
  assert (tmp_path / 'again.html').read_text() == text


def test_charts_that_would_lie_are_refused():
  page = report_lib.Report('x')
  with pytest.raises(ValueError, match="bands of no series: .'b'."):
    page.add_curves('s', {'a': [(0, 1.0)]}, bands={'b': [(0, 1.0, 2.0)]})
  with pytest.raises(ValueError, match='above 0'):
    page.add_curves('s', {'a': [(0, 1.0)]}, log_x=True)
  with pytest.raises(ValueError, match='better is'):
    page.add_pareto('s', {}, 'x', 'y', ('low', 'low'))
