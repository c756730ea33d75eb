"""A README's picture has every contrast of the first outcome, to scale."""

import re

from audiolm_jax.lab import plots


def _line(a, mean, low, high, **more):
  return {'a': a, 'b': 'base', 'mean': mean, 'low': low, 'high': high, **more}


def _results(lines, margin=0.5):
  outcome = {'name': 'bits', 'unit': 'bits/frame', 'description': 'few'}
  return {
      'outcomes': [{**outcome, 'margin': margin}],
      'comparisons': {'bits': lines},
  }


def _intervals(svg):
  """(left, right) of every interval, in the order of the rows."""
  style = f'stroke: {plots._CLAIM}; stroke-width: 1.5'
  paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n" '
                     r'[^>]*' + re.escape(style), svg)  # fmt: skip
  return [tuple(map(float, path)) for path in paths]


def test_intervals_are_to_scale_and_labelled():
  lines = [
      _line('a', -1.0, -2.0, 0.0),
      _line('b', 3.0, 2.0, 4.0),
      _line('c', 1.0, None, 2.0),
      _line('d', 1.0, 0.5, 1.5, expected='higher'),
  ]
  svg = plots.forest(_results(lines))
  for text in ('a − base', '-1.00 [-2.00, +0.00]', '+1.00 […, +2.00]'):
    assert text in svg
  a, b = _intervals(svg)  # The control has another colour; c has no end.
  assert abs((a[1] - a[0]) - (b[1] - b[0])) < 0.01
  # b begins as far from a's end as each is long.
  assert abs((b[0] - a[1]) - (a[1] - a[0])) < 0.01
  assert plots._CONTROL in svg
  assert plots._CONTROL not in plots.forest(_results(lines[:3]))


def test_the_same_results_give_the_same_file():
  lines = [_line('a', -1.0, -2.0, 0.0)]
  assert plots.forest(_results(lines)) == plots.forest(_results(lines))
  assert plots.forest(_results(lines)) != plots.forest(_results(lines, None))


def test_without_contrasts_there_is_no_picture():
  assert plots.forest(_results([])) == ''
