"""Intervals against scipy, closed forms and simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from audiolm_jax.comparison import statistics


def test_t_interval_equals_scipys():
  values = np.random.default_rng(0).standard_normal(7)
  interval = statistics.t_interval(values, 0.9)
  expected = stats.t.interval(
      0.9, 6, loc=values.mean(), scale=stats.sem(values)
  )
  assert (interval.low, interval.high) == pytest.approx(expected)
  assert interval.mean == pytest.approx(values.mean())


def test_two_seeds_by_hand():
  # t(.975, df 1) = 12.706; sd of {1, 3} is sqrt 2, so the error is 1.
  interval = statistics.t_interval([1.0, 3.0])
  assert interval.high == pytest.approx(2 + 12.706, abs=1e-3)


def test_values_must_be_finite_and_there():
  with pytest.raises(ValueError, match='finite'):
    statistics.t_interval([1.0, math.nan])
  with pytest.raises(ValueError, match='n >= 1'):
    statistics.t_interval([])


def test_one_seed_carries_no_claim():
  interval = statistics.t_interval([5.0])
  assert math.isnan(interval.low) and not interval.excludes_zero
  assert statistics.verdict(interval) == 'one seed: no claim'
  assert 'no interval' in interval.format()


def test_coverage_over_seeds_and_why_items_do_not_replace_them():
  """3 seeds: the t-interval covers 95%, bootstraps over items far less."""
  rng = np.random.default_rng(0)
  trials, seeds, items = 400, 3, 40
  by_seeds = by_items = 0
  for _ in range(trials):
    # A seed shifts all of its items: the true difference is 0.
    shift = rng.standard_normal(seeds)
    scores = shift[:, None] + 0.5 * rng.standard_normal((seeds, items))
    interval = statistics.t_interval(scores.mean(axis=1))
    by_seeds += interval.low <= 0 <= interval.high
    one = {str(i): (v, 1.0) for i, v in enumerate(scores[0])}
    interval = statistics.bootstrap(one, samples=200)
    by_items += interval.low <= 0 <= interval.high
  assert by_seeds / trials == pytest.approx(0.95, abs=0.035)
  assert by_items / trials < 0.4


def test_bootstrap_covers_what_it_claims_to():
  """Of the mean over items, ratio of sums, near the normal interval."""
  rng = np.random.default_rng(3)
  values, weights = rng.standard_normal(400), rng.integers(1, 9, 400)
  scores = {
      str(i): (v * w, float(w))
      for i, (v, w) in enumerate(zip(values, weights, strict=True))
  }
  interval = statistics.bootstrap(scores)
  mean = np.average(values, weights=weights)
  residual = (values - mean) * weights
  error = 1.96 * math.sqrt((residual**2).sum()) / weights.sum()
  assert interval.mean == pytest.approx(mean)
  assert interval.high - interval.low == pytest.approx(2 * error, rel=0.1)
  assert interval.over == statistics.CHECKPOINTS
  assert 'these checkpoints only' in statistics.verdict(interval)


def test_bootstrap_of_a_difference_is_paired():
  rng = np.random.default_rng(4)
  hard = 10 * rng.standard_normal(50)
  a = {str(i): (v + 1.0, 1.0) for i, v in enumerate(hard)}
  b = {str(i): (v, 1.0) for i, v in enumerate(hard)}
  interval = statistics.bootstrap(a, b)
  # Items differ widely, pairs not at all.
  assert (interval.low, interval.high) == pytest.approx((1.0, 1.0))
  with pytest.raises(ValueError, match='same'):
    statistics.bootstrap(a, {'0': (1.0, 1.0)})


def test_detectable_difference_has_its_power():
  rng = np.random.default_rng(5)
  n, trials = 8, 1500
  scale = 1 / math.sqrt(n)
  true = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * scale
  draws = true + rng.standard_normal((trials, n))
  found = [statistics.t_interval(d).excludes_zero for d in draws]
  assert np.mean(found) == pytest.approx(0.8, abs=0.05)
  detectable = [statistics.t_interval(d).detectable for d in draws]
  assert np.mean(detectable) == pytest.approx(true, rel=0.05)


def test_verdicts():
  interval = statistics.t_interval([-1.0, -1.1, -0.9])
  assert statistics.verdict(interval, 'bits', 1) == 'lower by 1.0 bits'
  interval = statistics.t_interval([-1.0, 1.1, 0.1])
  assert statistics.verdict(interval).startswith('no difference found (')
