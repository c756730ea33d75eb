"""Errors by noise level, and the noise that they and samplers use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import validation
from tests.processes import known

TIMES = validation.levels(4)


def _keys(*rows):
  return noise_lib.row_keys(jax.random.key(0), jnp.array(rows))


def test_levels_are_the_middles():
  np.testing.assert_allclose(TIMES, [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize('target', 'xevu')
def test_errors_of_a_known_denoiser_are_the_least(target):
  """The least mean squared error of x is s^2 b^2 / (a^2 s^2 + b^2)."""
  std, process = 0.5, known.COSINE
  denoiser = known.normal(process, target, std=std)
  x = std * jax.random.normal(jax.random.key(1), (4, 500, 16))
  mask = jnp.ones(x.shape[:2], bool)
  found = validation.errors(denoiser, x, mask, _keys(0, 1, 2, 3), TIMES)
  a, b = process.scales(TIMES)
  least = std**2 * b**2 / (a**2 * std**2 + b**2)
  expected = least * process.error_factor(target, TIMES)
  np.testing.assert_allclose(found.sum(0) / mask.sum(), expected, rtol=0.04)


def test_a_worse_prediction_has_a_larger_error_on_the_same_draws():
  x = 0.5 * jax.random.normal(jax.random.key(1), (2, 5, 3))
  mask = jnp.ones(x.shape[:2], bool)

  def errors(shift):
    good = known.normal(known.FLOW, 'u', std=0.5)
    denoiser = gaussian.Denoiser(
        known.FLOW, 'u', lambda z, t: good.predict(z, t) + shift * (t > 0.5)[0]
    )
    return validation.errors(denoiser, x, mask, _keys(0, 1), TIMES).sum(0)

  good, bad = errors(0.0), errors(2.0)
  np.testing.assert_array_equal(good[:2], bad[:2])
  assert (bad[2:] > good[2:] + 1).all()


def test_rows_alone_and_padding():
  def predict(z, t):
    # Frames that see each other: what padding holds would be seen.
    return z - z.sum(1, keepdims=True) * jnp.reshape(t, (-1, 1, 1))

  denoiser = gaussian.Denoiser(known.FLOW, 'v', predict)
  x = jax.random.normal(jax.random.key(1), (3, 6, 2))
  mask = jnp.arange(6) < jnp.array([6, 3, 4])[:, None]
  x = jnp.where(mask[..., None], x, jnp.nan)
  both = validation.errors(denoiser, x, mask, _keys(7, 8, 9), TIMES)
  alone = validation.errors(
      denoiser, x[1:2, :3], mask[1:2, :3], _keys(8), TIMES
  )
  np.testing.assert_allclose(both[1], alone[0], rtol=1e-5)
  assert not np.allclose(both[0] / 6, both[1] / 3, rtol=1e-3)


def test_noise_goes_by_row_and_absolute_frame():
  keys = _keys(4, 9)
  whole = noise_lib.normal(keys, (6, 3))
  np.testing.assert_array_equal(noise_lib.normal(keys, (4, 3)), whole[:, :4])
  np.testing.assert_array_equal(noise_lib.normal(_keys(9), (6, 3)), whole[1:])
  part = noise_lib.normal(keys, (2, 3), jnp.array([1, 4]))
  np.testing.assert_array_equal(part[0], whole[0, 1:3])
  np.testing.assert_array_equal(part[1], whole[1, 4:6])
  # No two are alike, of rows, frames, steps.
  other = noise_lib.normal(noise_lib.fold(keys, 1), (6, 3))
  values = np.concatenate([np.ravel(whole), np.ravel(other)])
  assert len(np.unique(values)) == values.size
  assert abs(np.mean(noise_lib.normal(keys, (2000, 3)))) < 0.05
