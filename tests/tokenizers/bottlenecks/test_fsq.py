"""Finite scalar quantisation: the grid, its codes, what is reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers.bottlenecks import fsq


def _jit(function):
  return jax.jit(
      function, compiler_options={'xla_backend_optimization_level': 0}
  )


GRIDS = [(8, 5, 5, 5), (4, 4), (3, 3, 3), (2, 7), (5,)]


@pytest.mark.parametrize('grid', GRIDS)
def test_codes_and_points_of_the_grid_are_one_to_one(grid):
  codes = np.arange(np.prod(grid))
  digits = np.asarray(fsq.decode_digits(jnp.asarray(codes), grid))
  np.testing.assert_array_equal(fsq.encode_digits(digits, grid), codes)
  assert len(np.unique(digits, axis=0)) == len(codes)
  for column, count in zip(digits.T, grid, strict=True):
    low = -(count // 2)
    np.testing.assert_array_equal(
        np.unique(column), np.arange(low, low + count)
    )
  # The first dimension is the lowest digit.
  assert (digits[1] - digits[0] == np.eye(len(grid))[0]).all()


@pytest.mark.parametrize('stretch', [1e-3, -1e-3])
@pytest.mark.parametrize('grid', GRIDS)
def test_every_code_is_reached_and_no_other(grid, stretch):
  x = np.linspace(-8, 8, 4001)[:, None] * np.ones(len(grid))
  digits, _ = _jit(lambda x: fsq.nearest(fsq.bound(x, grid, stretch), grid))(x)
  for column, count in zip(np.asarray(digits).T, grid, strict=True):
    low = -(count // 2)
    np.testing.assert_array_equal(
        np.unique(column), np.arange(low, low + count)
    )


def test_odd_counts_are_centred_and_even_ones_shifted_by_half():
  # Section 3.1: f(0) is 0 for odd counts; for even ones the shift keeps it so.
  zero = fsq.bound(jnp.zeros((1, 2)), (5, 4), 1e-3)
  np.testing.assert_allclose(zero, 0, atol=1e-6)
  far = fsq.bound(jnp.array([[50.0, 50.0], [-50.0, -50.0]]), (5, 4), 1e-3)
  np.testing.assert_allclose(far, [[2.002, 1.0015], [-2.002, -2.0015]], 1e-5)


def test_s3_is_a_configuration():
  """CosyVoice 2: round(.999 tanh(h)) + 1 as digits in base 3."""
  s3 = fsq.Fsq(grid=(3,) * 8, stretch=-1e-3, project=False)
  h = np.random.default_rng(0).normal(size=(2, 50, 8)).astype(np.float32)
  digits = np.round(np.tanh(h) * 0.999) + 1
  expected = (digits * 3 ** np.arange(8)).sum(-1)
  variables = s3.init(jax.random.key(0), 8)
  found = _jit(s3.quantise)(variables, h, np.ones((2, 50), bool))
  np.testing.assert_array_equal(found.codes[..., 0], expected)
  assert s3.slots()[0].vocabulary == 6561


def test_the_gradient_is_that_of_the_bound():
  one = fsq.Fsq(grid=(8, 5), project=False)
  x = np.random.default_rng(0).normal(size=(1, 6, 2)).astype(np.float32)
  mask = np.ones((1, 6), bool)
  variables = one.init(jax.random.key(0), 2)

  def latents(x):
    return one.quantise(variables, x, mask).latents.sum()

  def bounded(x):
    return (fsq.bound(x, (8, 5), 1e-3) / np.array([4, 2])).sum()

  np.testing.assert_allclose(
      _jit(jax.grad(latents))(x), _jit(jax.grad(bounded))(x), rtol=1e-5
  )


def test_margins_are_of_the_closest_dimension():
  x = jnp.array([[0.25, 1.0], [2.4, -2.1], [-0.5, 0.0]])
  digits, margins = fsq.nearest(x, (5, 5))
  np.testing.assert_array_equal(digits, [[0, 1], [2, -2], [0, 0]])
  # Distances to best and second best: .25 and .75; .4 and 1.4; .5 and .5.
  expected = [0.5, (1.4 - 0.4) / 1.8, 0.0]
  np.testing.assert_allclose(margins, expected, atol=1e-6)


def test_each_level_leaves_at_most_half_a_step_of_its_own():
  grid = (3, 5, 4, 2)
  one = fsq.Fsq(grid=grid, codebooks=3, project=False)
  x = np.random.default_rng(0).normal(size=(1, 400, 4)).astype(np.float32)
  variables = one.init(jax.random.key(0), 4)
  mask = np.ones((1, 400), bool)
  codes = _jit(one.quantise)(variables, x, mask).codes
  half = np.array(grid) // 2
  bounded = fsq.bound(x, grid, 1e-3) / half
  for levels in (1, 2, 3):
    back = _jit(one.dequantise)(variables, codes[..., :levels])
    step = 1 / half / np.array(grid) ** (levels - 1)
    error = np.abs(np.asarray(back) - bounded).max(axis=(0, 1))
    # The stretch takes the outermost values a little further.
    assert (error <= 0.5 * step + 2e-3).all(), (levels, error, step)
    # And not much less, so that each step is used.
    assert (error > 0.4 * step).all(), (levels, error, step)


def test_slots_go_by_level_then_group():
  one = fsq.Fsq(grid=(3, 5), groups=2, codebooks=2, project=False)
  assert [s.codebook for s in one.slots()] == [0, 1, 2, 3]
  assert one.prefixes() == (2, 4)
  variables = one.init(jax.random.key(0), 4)
  x = np.random.default_rng(0).normal(size=(1, 9, 4)).astype(np.float32)
  mask = np.ones((1, 9), bool)
  quantise = _jit(one.quantise)
  codes = quantise(variables, x, mask).codes
  # Another second group changes slots 1 and 3 only.
  other = np.concatenate([x[..., :2], -x[..., 2:]], axis=-1)
  changed = (quantise(variables, other, mask).codes != codes).any((0, 1))
  np.testing.assert_array_equal(changed, [False, True, False, True])


def test_refusals():
  with pytest.raises(config.ConfigError, match='project'):
    fsq.Fsq(grid=(3, 3), project=False).init(jax.random.key(0), 5)
  with pytest.raises(config.ConfigError, match='reached'):
    fsq.Fsq(grid=(3, 2), bounds=2)
  with pytest.raises(config.ConfigError, match='grid'):
    fsq.Fsq(grid=(1000,) * 4)
