"""Flows of known denoisers: consistent, with the divergence that they have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import likelihood
from tests.processes import known

MEAN, STD = 0.7, 0.4
FLOW = known.normal(known.FLOW, 'u', MEAN, STD)


def _points():
  z = np.random.default_rng(0).normal(size=(3, 2, 2))
  return jnp.asarray(z, jnp.float32)


def _map(z, start, end):
  """`known.flow_map` for JAX's times."""

  def spread(t):
    return jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)

  ratio = spread(end) / spread(start)
  return (1 - end) * MEAN + ratio * (z - (1 - start) * MEAN)


def test_the_flow_map_follows_the_velocity_and_itself():
  z, start, end = _points(), 0.8, 0.3
  rows = jnp.ones(len(z))
  moved = jax.jvp(lambda t: _map(z, start, t), (end,), (1.0,))[1]
  velocity = FLOW.velocity(_map(z, start, end), end * rows)
  np.testing.assert_allclose(moved, velocity, rtol=1e-4, atol=1e-5)
  twice = _map(_map(z, start, 0.5), 0.5, end)
  np.testing.assert_allclose(twice, _map(z, start, end), rtol=1e-5, atol=1e-6)
  # A consistency function gives one point of data along a path.
  np.testing.assert_allclose(
      _map(_map(z, 0.9, 0.4), 0.4, 0.0), _map(z, 0.9, 0.0), rtol=1e-4, atol=1e-5
  )


def test_the_mean_velocity_meets_mean_flows_identity():
  """u(z, r, t) = v - (t - r) du/dt along the path (2505.13447, eq. 6)."""
  z, r, t = _points(), 0.2, 0.9

  def mean_velocity(z, t):
    return (z - _map(z, t, r)) / (t - r)

  v = FLOW.velocity(z, jnp.full(len(z), t))
  u, along = jax.jvp(mean_velocity, (z, t), (v, 1.0))
  np.testing.assert_allclose(u, v - (t - r) * along, rtol=1e-4, atol=1e-4)
  # The velocity of a pair (x, e) instead of the mean one is not consistent.
  other = jax.jvp(mean_velocity, (z, t), (v + 1, 1.0))[1]
  assert not np.allclose(u, v - (t - r) * other, atol=1e-2)


@pytest.mark.parametrize('t', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('process', [known.FLOW, known.COSINE, known.VP])
def test_divergence_is_that_of_the_closed_form(process, t):
  denoiser = known.normal(process, 'v', MEAN, STD)
  z = _points()
  every = jnp.full(len(z), t)
  values, found = likelihood.with_divergence(
      lambda z: denoiser.velocity(z, every), z
  )
  np.testing.assert_array_equal(values, denoiser.velocity(z, every))
  # The slope of log sigma_t, each of 4 dimensions.
  a, b = process.scales(t)
  da, db = process.slopes(t)
  slope = (a * da * STD**2 + b * db) / (a**2 * STD**2 + b**2)
  np.testing.assert_allclose(found, np.full(3, 4 * slope), rtol=1e-4)


def test_divergence_of_a_function_that_mixes():
  matrix = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)

  def function(z):
    flat = z.reshape(len(z), 4)
    return jnp.tanh(flat @ matrix).reshape(z.shape)

  z = _points()
  jacobian = jax.vmap(jax.jacobian(lambda z: function(z[None])[0]))(z)
  expected = np.einsum('bijij->b', jacobian)
  found = likelihood.with_divergence(function, z)[1]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('process', [known.FLOW, known.COSINE])
def test_log_likelihood_of_a_known_flow(process):
  denoiser = known.normal(process, 'v', MEAN, STD)
  x = MEAN + STD * _points()
  times = np.linspace(0, 1, 129)
  found = likelihood.log_prob(denoiser, x, times)
  expected = jax.scipy.stats.norm.logpdf(x, MEAN, STD).sum((1, 2))
  np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_times_of_likelihoods_are_checked():
  x = _points()
  # Where noise is not standard normal yet, the sum would be of nothing.
  with pytest.raises(ValueError, match='expected 1 at the end of noise'):
    likelihood.log_prob(FLOW, x, np.array([0.0, 0.5]))
  with pytest.raises(ValueError, match='rising'):
    likelihood.log_prob(FLOW, x, np.array([1.0, 0.0]))
  vp = gaussian.Denoiser(known.VP, 'v', FLOW.predict)
  with pytest.raises(ValueError, match='slopes'):
    likelihood.log_prob(vp, x, np.array([0.0, 1.0]))
