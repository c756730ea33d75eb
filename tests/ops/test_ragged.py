"""Blocks of rows against XLA's own `ragged_dot`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import ragged


def _case(rows, sizes, width=5, features=6):
  rng = np.random.default_rng(rows)
  x = rng.normal(size=(rows, width)).astype(np.float32)
  w = rng.normal(size=(len(sizes), width, features)).astype(np.float32)
  probe = rng.normal(size=(rows, features)).astype(np.float32)
  return x, w, np.array(sizes, np.int32), probe


@pytest.mark.parametrize(
    ('rows', 'sizes'),
    [
        (2, (0, 1, 0, 1, 0)),
        (4, (1, 1, 0, 0)),
        (40, (0, 23, 1, 16)),
        (41, (3, 0, 20, 10)),  # 8 rows of no group
        (300, (300, 0)),
        (300, (131, 129)),
        (0, (0, 0)),
    ],
)
def test_rows_and_gradients_are_those_of_lax(rows, sizes):
  x, w, sizes, probe = _case(rows, sizes)

  def loss(function):
    def total(x, w):
      y = function(x, w, sizes)
      return jnp.sum(y * probe), y

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, w)

  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      loss(ragged.ragged_dot),
      loss(jax.lax.ragged_dot),
  )


def test_nothing_leaks_between_groups_or_from_rows_of_none():
  x, w, sizes, _ = _case(6, (2, 0, 3))
  x[5] = np.nan
  y = ragged.ragged_dot(x, w, sizes)
  assert np.isfinite(y).all() and (np.asarray(y[5]) == 0).all()
  # A matrix that no row meets is not looked at.
  w[1] = np.nan
  np.testing.assert_array_equal(ragged.ragged_dot(x, w, sizes), y)


def test_it_is_mapped_over_batches():
  cases = [_case(12, sizes) for sizes in ((5, 7), (0, 9))]
  x, w, sizes, _ = (np.stack(a) for a in zip(*cases, strict=True))
  got = jax.vmap(ragged.ragged_dot)(x, w, sizes)
  for row, (x, w, sizes, _) in enumerate(cases):
    want = jax.lax.ragged_dot(x, w, sizes)
    np.testing.assert_allclose(got[row], want, rtol=1e-5, atol=1e-5)
