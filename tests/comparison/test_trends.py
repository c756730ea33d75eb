"""Curves: laws recovered, bands and contrasts as blocks have them, refusals."""

import math

import numpy as np
import pytest

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import statistics
from audiolm_jax.comparison import trends

X = (1.0, 4.0, 16.0, 64.0, 256.0)


def noisy(law, arms=('a',), seeds=3, sd=0.0, x=X, seed=0):
  """The same law for every arm, with noise by point."""
  rng = np.random.default_rng(seed)
  return trends.curves(
      {
          arm: {
              s: [(n, law(n) + sd * rng.standard_normal()) for n in x]
              for s in range(seeds)
          }
          for arm in arms
      }
  )


@pytest.mark.parametrize('truth', [(5.0, 2.0, 0.5), (-1.0, -3.0, 1.7)])
def test_a_power_law_is_recovered(truth):
  a, b, c = truth
  fit = trends.power_law(noisy(lambda x: a + b * x**-c), 'a')
  for name, value in zip('abc', truth, strict=True):
    assert fit.parameter(name).mean == pytest.approx(value, rel=1e-4)
  assert fit.residual < 1e-6 and fit.at_bounds == ()
  assert fit.predict(1024.0).mean == pytest.approx(a + b * 1024**-c, rel=1e-4)


def test_intervals_of_a_fit_are_over_seeds():
  measured = noisy(lambda x: 5 + 2 * x**-0.5, sd=0.02)
  fit = trends.power_law(measured, 'a')
  assert len(set(fit.parameters.values())) == 3
  values = [p[0] for p in fit.parameters.values()]
  assert fit.parameter('a') == statistics.t_interval(values)
  assert fit.parameter('a').low < 5 < fit.parameter('a').high
  assert 0.002 < fit.residual < 0.03


def test_bounds_hold_and_are_said():
  measured = noisy(lambda x: 5 + 2 * x**-0.5)
  fit = trends.power_law(measured, 'a', a=(5.2, 9.0))
  assert fit.parameter('a').mean == pytest.approx(5.2)
  assert fit.at_bounds[0] == 'seed 0: a = 5.2' and len(fit.at_bounds) == 3
  fit = trends.power_law(measured, 'a', c=(1.0, 2.0))
  assert {text.partition(': ')[2] for text in fit.at_bounds} == {'c = 1'}
  fit = trends.power_law(measured, 'a', b=(0.5, 1.0))
  assert fit.parameter('b').mean == pytest.approx(1.0)


def test_a_bounded_fit_is_the_best_within_its_bounds():
  rng = np.random.default_rng(1)
  measured = noisy(lambda x: 5 + 2 * x**-0.5, sd=0.3, seeds=1)
  fit = trends.power_law(measured, 'a', a=(4.8, 5.1), b=(0, 9), c=(0.1, 2))
  y = measured.values['a'][0]
  draws = rng.uniform((4.8, 0, 0.1), (5.1, 9, 2), (20_000, 3))
  values = draws[:, :1] + draws[:, 1:2] * np.array(X) ** -draws[:, 2:]
  best = np.sqrt(((values - y) ** 2).mean(axis=1)).min()
  assert fit.residual <= best + 1e-9


def test_log_linear_slope_is_by_doubling():
  fit = trends.log_linear(noisy(lambda x: 7 - 0.25 * math.log2(x)), 'a')
  assert fit.parameter('a').mean == pytest.approx(7)
  assert fit.parameter('b').mean == pytest.approx(-0.25)
  assert fit.predict(1024.0).mean == pytest.approx(4.5)


def test_bands_are_the_pooled_variance_at_each_point():
  rng = np.random.default_rng(2)
  table = rng.standard_normal((3, 4, len(X)))
  shift = 50 * rng.standard_normal((4, len(X)))

  def bands(values):
    return trends.curves(
        {
            f'arm {i}': {
                s: list(zip(X, run, strict=True)) for s, run in enumerate(arm)
            }
            for i, arm in enumerate(values)
        }
    ).bands()

  plain = np.array(bands(table)['arm 1'])
  np.testing.assert_allclose(plain[:, 0], X)
  np.testing.assert_allclose(plain[:, 1], table[1].mean(axis=0))
  values = {f'{i}': dict(enumerate(arm[:, 2])) for i, arm in enumerate(table)}
  reach = 2.446912 * blocks.pooled(values).sd / 2  # t(.975, df 6), four seeds
  assert plain[2, 3] - plain[2, 1] == pytest.approx(reach, rel=1e-6)
  shifted = np.array(bands(table + shift)['arm 1'])
  np.testing.assert_allclose(
      shifted[:, 3] - shifted[:, 2], plain[:, 3] - plain[:, 2]
  )
  alone = bands(table[:1])['arm 0'][0]
  interval = statistics.t_interval(table[0, :, 0])
  assert alone[1:] == pytest.approx(
      (interval.mean, interval.low, interval.high)
  )
  (x, mean, low, high), *_ = bands(table[:, :1])['arm 0']
  assert mean == table[0, 0, 0] and math.isnan(low) and math.isnan(high)


def test_heights_are_areas_over_widths():
  measured = noisy(lambda x: math.log2(x))
  assert measured.height(1.0, 256.0, log=True)['a'][0] == pytest.approx(4.0)
  straight = noisy(lambda x: 2 * x)
  assert straight.height(4.0, 64.0)['a'][0] == pytest.approx(68.0)


def test_contrasts_at_points_share_the_error():
  measured = noisy(lambda x: x, arms=('a', 'b', 'c'), sd=1.0)
  contrasts = blocks.against('a', ['a', 'b', 'c'])
  together = trends.compare_at(measured, [4.0, 64.0], contrasts)
  alone = blocks.compare(measured.at(64.0), contrasts, level=0.975)
  assert together[64.0] == alone
  with pytest.raises(ValueError, match='points to compare at'):
    trends.compare_at(measured, [], contrasts)


@pytest.mark.parametrize(
    'points, message',
    [
        ({}, 'need arms'),
        ({'a': {}}, 'need arms'),
        ({'a': {0: [(1, 2)]}, 'b': {1: [(1, 2)]}}, r'seeds \[0\], but b'),
        ({'a': {0: [(1, 2)], 1: [(2, 2)]}}, r'a, seed 1 was measured at \[2'),
        ({'a': {0: [(1, 2)], 1: []}}, r'a, seed 1 was measured at \[\]'),
        ({'a': {0: [(1, 2), (1, 3)]}}, 'each once'),
        ({'a': {0: []}}, 'needs points'),
        ({'a': {0: [(1, math.nan)]}}, 'a, seed 0 has points that are not'),
    ],
)
def test_points_that_do_not_match_are_refused(points, message):
  with pytest.raises(ValueError, match=message):
    trends.curves(points)


def test_what_was_not_measured_is_not_made_up():
  measured = noisy(lambda x: x)
  with pytest.raises(ValueError, match='measured at 5, only'):
    measured.at(5.0)
  with pytest.raises(ValueError, match='measured points in order'):
    measured.height(64.0, 4.0)
  with pytest.raises(ValueError, match='measured points in order'):
    measured.height(2.0, 64.0)
  zero = noisy(lambda x: x, x=(0.0, 1.0, 2.0, 3.0))
  with pytest.raises(ValueError, match='above 0, got 0'):
    trends.power_law(zero, 'a')
  with pytest.raises(ValueError, match='needs 4 points'):
    trends.power_law(noisy(lambda x: x, x=(1.0, 2.0, 3.0)), 'a')
  with pytest.raises(ValueError, match='b is no arm'):
    trends.log_linear(measured, 'b')
  with pytest.raises(ValueError, match='bounds must be in order'):
    trends.power_law(measured, 'a', c=(0.0, 1.0))
