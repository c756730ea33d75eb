"""What training hides: how much, where, and by which keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import hiding
from audiolm_jax.processes import noise as noise_lib

RULES = {
    'subset': hiding.Subset(),
    'cosine': hiding.Rate(),
    'linear': hiding.Rate('linear'),
    'least': hiding.Rate('linear', 0.6),
    'spans': hiding.Spans(),
}
every_rule = pytest.mark.parametrize('name', RULES)


def keys(count, seed=0):
  return noise_lib.row_keys(jax.random.key(seed), jnp.arange(count))


def test_all_rules_are_here():
  assert {type(rule) for rule in RULES.values()} == set(hiding.HIDINGS.values())


@every_rule
def test_only_free_places_are_hidden_and_at_least_one(name):
  rows = 200
  rng = np.random.default_rng(0)
  free = jnp.asarray(rng.random((rows, 6, 2)) < 0.5).at[0].set(False)
  level = jnp.asarray(rng.random(rows), jnp.float32).at[1].set(1 - 1e-8)
  masked, weight = RULES[name](keys(rows), level, free)
  assert not (masked & ~free).any()
  there = np.asarray(free).any((1, 2))
  np.testing.assert_array_equal(np.asarray(masked).any((1, 2)), there)
  assert np.isfinite(weight).all()
  assert (weight[there] >= 1).all()


def test_a_subset_is_uniform_and_weighs_what_it_leaves_out():
  rows, places = 40_000, 4
  level = (jnp.arange(rows) + 0.5) / rows
  free = jnp.ones((rows, places, 1), bool)
  masked, weight = hiding.Subset()(keys(rows), level, free)
  number = np.asarray(masked[:, :, 0] @ (2 ** jnp.arange(places)))
  counts = np.asarray(masked.sum((1, 2)))
  np.testing.assert_allclose(weight, places / counts)
  # So many of each size, and of each size each set as often.
  np.testing.assert_array_equal(np.bincount(counts), [0, *[rows // 4] * 4])
  for size, sets in ((1, 4), (2, 6), (3, 4)):
    shares = np.bincount(number[counts == size], minlength=16) * sets * 4 / rows
    np.testing.assert_allclose(shares[shares > 0], 1, atol=0.06)
    assert (shares > 0).sum() == sets


@pytest.mark.parametrize(
    'name, expected',
    [
        ('cosine', lambda u: np.cos(np.pi / 2 * u)),
        ('linear', lambda u: 1 - u),
        ('least', lambda u: np.maximum(1 - u, 0.6)),
        ('spans', lambda u: np.cos(np.pi / 2 * u)),
    ],
)
def test_the_share_that_is_hidden(name, expected):
  rows, frames = 2000, 200
  level = (jnp.arange(rows) + 0.5) / rows
  free = jnp.ones((rows, frames, 1), bool)
  masked, weight = RULES[name](keys(rows), level, free)
  np.testing.assert_array_equal(weight, 1)
  shares = np.asarray(masked.mean((1, 2))).reshape(20, 100).mean(1)
  found = np.asarray(level).reshape(20, 100).mean(1)
  # Spans are a whole number; those that reach past the row hide less.
  atol = 0.015 if name == 'spans' else 0.005
  np.testing.assert_allclose(shares, expected(found), atol=atol)


def test_spans_hide_whole_frames_in_runs():
  rows, frames = 50, 60
  free = jnp.ones((rows, frames, 2), bool).at[:, :, 1].set(False)
  masked, _ = hiding.Spans(4)(keys(rows), jnp.full(rows, 0.8), free)
  assert not masked[..., 1].any()
  for row in np.asarray(masked[..., 0]):
    edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
    starts, ends = edges[::2], edges[1::2]
    assert ((ends - starts >= 4) | (ends == frames)).all()
    assert len(starts) > 1


@pytest.mark.parametrize('total', [3, 7, 20])
def test_the_number_of_spans_is_the_least_that_suffices(total):
  """By the formula itself, with binomial coefficients."""
  from math import comb  # pylint: disable=g-import-not-at-top

  for rate in (0.0, 0.05, 0.3, 0.77, 1.0):
    found = int(
        hiding.spans_of_rate(jnp.array([rate]), jnp.array([total]), 20, 3)[0]
    )
    covered = [
        1 - comb(max(total - 3, 0), u) / comb(total, u)
        for u in range(total + 1)
    ]
    expected = next(u for u, c in enumerate(covered) if c >= rate - 1e-4)
    assert found == expected, rate


@every_rule
def test_rows_alone_and_padding(name):
  free = jnp.ones((3, 9, 2), bool)
  free &= jnp.arange(9)[:, None] < jnp.array([9, 4, 6])[:, None, None]
  level = jnp.array([0.2, 0.5, 0.7])
  batch, _ = RULES[name](keys(3), level, free)
  alone, _ = RULES[name](keys(3)[1:2], level[1:2], free[1:2, :4])
  np.testing.assert_array_equal(batch[1, :4], alone[0])
  # Rows have noise of their own.
  same, _ = RULES[name](keys(3), jnp.full(3, 0.5), jnp.ones((3, 9, 2), bool))
  assert (np.asarray(same[0]) != np.asarray(same[1])).any()


def test_covered():
  starts = jnp.array([[True, False, False, True, False, False, True]])
  np.testing.assert_array_equal(
      hiding.covered(starts, 2),
      [[True, True, False, True, True, False, True]],
  )
