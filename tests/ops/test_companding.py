"""The mu-law curve, of numpy and JAX arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import companding

X = np.linspace(-1, 1, 201)


@pytest.mark.parametrize('mu', [1, 15, 255])
def test_it_is_the_curve_and_comes_back(mu):
  y = companding.compress(X, mu)
  assert isinstance(y, np.ndarray) and y.dtype == np.float64
  # The base of the logarithm is any.
  wanted = np.sign(X) * np.log2(1 + mu * np.abs(X)) / np.log2(1 + mu)
  np.testing.assert_allclose(y, wanted, rtol=1e-12)
  np.testing.assert_allclose(companding.expand(y, mu), X, atol=1e-12)


def test_louder_by_a_factor_is_a_step_of_its_own():
  """1 + 255 |x| = 2^k lies k / 8 of the way."""
  k = np.arange(9)
  found = companding.compress((2.0**k - 1) / 255, 255)
  np.testing.assert_allclose(found, k / 8, rtol=1e-12)


def test_jax_arrays_stay_jax_arrays():
  x = jnp.asarray(X, jnp.float32)
  for run in (companding.compress, companding.expand):
    y = jax.jit(run, static_argnums=1)(x, 255)
    assert isinstance(run(x, 255), jax.Array) and y.dtype == jnp.float32
    np.testing.assert_allclose(y, run(X, 255), rtol=1e-5, atol=1e-7)
