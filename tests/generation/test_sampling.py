"""The filters against numpy, and what is drawn against its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import generation


def _softmax(logits):
  p = np.exp(logits - logits.max())
  return p / p.sum()


def _reference(logits, temperature, top_k, top_p, min_p=0.0):
  """Probabilities after the filters, code by code (no ties)."""
  p = _softmax(np.asarray(logits, np.float64) / temperature)
  order = np.argsort(-p)
  kept = order if top_k is None else order[:top_k]
  p = p * np.isin(np.arange(len(p)), kept)
  p /= p.sum()
  nucleus, mass = [], 0.0
  for code in order:
    nucleus.append(code)
    mass += p[code]
    if mass >= top_p:
      break
  p = p * np.isin(np.arange(len(p)), nucleus)
  p = p * (p >= min_p * p.max())
  return p / p.sum()


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('top_k', [None, 1, 4, 99])
@pytest.mark.parametrize('top_p', [1.0, 0.7, 0.05])
@pytest.mark.parametrize('min_p', [0.0, 0.3, 1.0])
def test_filters_equal_numpy(temperature, top_k, top_p, min_p):
  logits = np.random.default_rng(0).normal(size=(3, 11)).astype(np.float32)
  sampler = generation.Sampler(temperature, top_k, top_p, min_p)
  got = jax.nn.softmax(sampler.filter(logits), axis=-1)
  for row in range(3):
    np.testing.assert_allclose(
        got[row],
        _reference(logits[row], temperature, top_k, top_p, min_p),
        rtol=1e-4,
        atol=1e-7,
    )


def test_impossible_codes_stay_impossible():
  logits = jnp.array([0.0, -jnp.inf, 1.0])
  for sampler in (
      generation.Sampler(top_k=3),
      generation.Sampler(top_p=0.99),
      generation.Sampler(top_p=0.0),
      generation.Sampler(min_p=0.01),
  ):
    filtered = sampler.filter(logits)
    assert filtered[1] == -jnp.inf and filtered[2] > -jnp.inf


@pytest.mark.parametrize('seed', range(4))
def test_a_mass_that_is_reached_exactly_is_enough(seed):
  """Of .5 .3 .1 .1, two hold .8; of 64 alike, 16 a quarter, all tie."""
  p = np.random.default_rng(seed).permutation([0.5, 0.3, 0.1, 0.1])
  filtered = generation.Sampler(top_p=0.8).filter(jnp.log(jnp.float32(p)))
  np.testing.assert_array_equal(jnp.isfinite(filtered), p > 0.2)
  filtered = generation.Sampler(top_p=0.3).filter(jnp.log(jnp.float32(p)))
  np.testing.assert_array_equal(jnp.isfinite(filtered), p > 0.4)
  # One more than a share of 1024 that adds up with rounding.
  p = np.repeat([3 / 2048, 1 / 2048], 512)
  filtered = generation.Sampler(top_p=0.75).filter(jnp.log(jnp.float32(p)))
  np.testing.assert_array_equal(jnp.isfinite(filtered), p > 0.001)


def test_min_p_in_closed_form():
  """Of .5 .3 .15 .05, a third of the likeliest is .167."""
  p = np.array([0.3, 0.05, 0.5, 0.15], np.float32)
  filtered = generation.Sampler(min_p=1 / 3).filter(jnp.log(p))
  np.testing.assert_allclose(
      jax.nn.softmax(filtered), [0.375, 0, 0.625, 0], rtol=1e-5
  )
  # At least this share, as fp32 has it: .3 of .5.
  filtered = generation.Sampler(min_p=0.6).filter(jnp.log(p))
  np.testing.assert_array_equal(jnp.isfinite(filtered), p > 0.2)


def test_the_order_of_the_filters():
  """Temperature first: at 2 the shares are .42 .32 .26, not .5 .3 .2."""
  logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
  kept = {
      t: int(
          jnp.isfinite(generation.Sampler(t, None, 0.45).filter(logits)).sum()
      )
      for t in (1.0, 2.0)
  }
  assert kept == {1.0: 1, 2.0: 2}
  # Top-k before top-p: of two codes with .625 and .375, one holds 0.6.
  filtered = generation.Sampler(1.0, 2, 0.6).filter(logits)
  assert int(jnp.isfinite(filtered).sum()) == 1
  # Repetition before temperature: a negative logit is multiplied by both.
  sampler = generation.Sampler(0.5, repetition_penalty=2.0, repetition_window=1)
  filtered = sampler.filter(jnp.array([2.0, -1.0, 3.0]), jnp.array([1]))
  np.testing.assert_allclose(filtered, [4.0, -4.0, 6.0])


def test_repetition_lowers_recent_codes_only():
  sampler = generation.Sampler(repetition_penalty=4.0, repetition_window=3)
  logits = jnp.array([[2.0, -2.0, 1.0, -jnp.inf], [1.0, 2.0, 3.0, 4.0]])
  recent = jnp.array([[0, 1, 3], [-1, -1, 2]])
  expected = [[0.5, -8.0, 1.0, -np.inf], [1.0, 2.0, 0.75, 4.0]]
  np.testing.assert_allclose(sampler.filter(logits, recent), expected)
  greedy = generation.Sampler(0.0, repetition_penalty=4.0, repetition_window=3)
  np.testing.assert_array_equal(greedy(logits, _keys(2), recent), [2, 3])
  # Without a penalty nothing changes.
  np.testing.assert_array_equal(
      generation.Sampler(repetition_window=3).filter(logits, recent), logits
  )


def _keys(count):
  return jax.random.split(jax.random.key(0), count)


@pytest.mark.parametrize(
    'options',
    [
        {'temperature': 0.8, 'top_k': 5, 'top_p': 0.9},
        {'temperature': 1.5, 'min_p': 0.4},
        {},
    ],
    ids=str,
)
def test_draws_follow_the_filtered_distribution(options):
  logits = np.random.default_rng(1).normal(size=8).astype(np.float32)
  sampler = generation.Sampler(**options)
  count = 10_000
  many = jnp.broadcast_to(logits, (count // 2, 2, 8))
  codes = sampler(many, _keys(count).reshape(-1, 2))
  frequency = np.bincount(np.ravel(codes), minlength=8) / count
  expected = np.asarray(jax.nn.softmax(sampler.filter(logits)))
  assert (frequency[expected == 0] == 0).all()
  np.testing.assert_allclose(frequency, expected, atol=0.02)


def test_temperature_zero_is_greedy():
  logits = jnp.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
  codes = generation.Sampler(temperature=0.0)(logits, _keys(2))
  np.testing.assert_array_equal(codes, [1, 0])


@pytest.mark.parametrize(
    'options',
    [
        {'repetition_penalty': 1.2},
        {'repetition_window': -1},
        {'temperature': np.inf},
        {'temperature': np.nan},
        {'temperature': -1.0},
        {'top_k': 0},
        {'top_p': np.nan},
        {'top_p': -0.1},
        {'min_p': 1.1},
        {'repetition_penalty': np.inf, 'repetition_window': 2},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused_however_made(options):
  with pytest.raises(config.ConfigError, match=next(iter(options))):
    generation.Sampler(**options)
  with pytest.raises(config.ConfigError, match=next(iter(options))):
    config.build(generation.Sampler, options)


def test_values_out_of_range_are_refused():
  for wrong in (
      {'temperature': -1.0},
      {'top_k': 0},
      {'top_p': 1.5},
      {'min_p': -0.1},
      {'repetition_penalty': 0.0},
      {'repetition_window': -1},
  ):
    with pytest.raises(config.ConfigError, match=next(iter(wrong))):
      config.build(generation.Sampler, wrong)
