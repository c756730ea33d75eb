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


def _reference(logits, temperature, top_k, top_p):
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
  return p / p.sum()


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('top_k', [None, 1, 4, 99])
@pytest.mark.parametrize('top_p', [1.0, 0.7, 0.05])
def test_filters_equal_numpy(temperature, top_k, top_p):
  logits = np.random.default_rng(0).normal(size=(3, 11)).astype(np.float32)
  sampler = generation.Sampler(temperature, top_k, top_p)
  got = jax.nn.softmax(sampler.filter(logits), axis=-1)
  for row in range(3):
    np.testing.assert_allclose(
        got[row],
        _reference(logits[row], temperature, top_k, top_p),
        rtol=1e-4,
        atol=1e-7,
    )


def test_impossible_codes_stay_impossible():
  logits = jnp.array([0.0, -jnp.inf, 1.0])
  for sampler in (
      generation.Sampler(top_k=3),
      generation.Sampler(top_p=0.99),
      generation.Sampler(top_p=0.0),
  ):
    filtered = sampler.filter(logits)
    assert filtered[1] == -jnp.inf and filtered[2] > -jnp.inf


def test_draws_follow_the_filtered_distribution():
  logits = np.random.default_rng(1).normal(size=8).astype(np.float32)
  sampler = generation.Sampler(0.8, 5, 0.9)
  count = 20_000
  codes = sampler(jnp.broadcast_to(logits, (count, 8)), jax.random.key(0))
  frequency = np.bincount(codes, minlength=8) / count
  expected = _reference(logits, 0.8, 5, 0.9)
  assert (frequency[expected == 0] == 0).all()
  np.testing.assert_allclose(frequency, expected, atol=0.015)


def test_temperature_zero_is_greedy():
  logits = jnp.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
  codes = generation.Sampler(temperature=0.0)(logits, jax.random.key(0))
  np.testing.assert_array_equal(codes, [1, 0])


def test_values_out_of_range_are_refused():
  for wrong in ({'temperature': -1.0}, {'top_k': 0}, {'top_p': 1.5}):
    with pytest.raises(config.ConfigError, match=next(iter(wrong))):
      config.build(generation.Sampler, wrong)
