"""8-bit weights: how far they are from what they round, wherever multiplied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops


def _random(shape, seed=0):
  rng = np.random.default_rng(seed)
  # Columns of different sizes, so that a shared scale would fail.
  x = rng.normal(size=shape) * np.exp(2 * rng.normal(size=shape[-1]))
  return x.astype(np.float32)


@pytest.mark.parametrize('shape', [(7, 5), (3, 7, 5)])
def test_values_move_by_half_a_step_at_most(shape):
  w = _random(shape)
  q = ops.quantize(w)
  assert q.shape == shape and q.values.dtype == jnp.int8
  step = np.abs(w).max(axis=-2, keepdims=True) / 127
  np.testing.assert_allclose(q.scale, step, rtol=1e-6)
  error = np.abs(ops.materialize(q) - w)
  assert (error <= step / 2 * (1 + 1e-4)).all() and error.max() > 0
  # The largest value of a column is exact.
  assert int(np.abs(q.values).max(axis=-2).min()) == 127
  np.testing.assert_array_equal(
      ops.materialize(ops.quantize(jnp.zeros(shape))), 0
  )
  with pytest.raises(ValueError, match='2 axes'):
    ops.quantize(jnp.ones(3))


@pytest.mark.parametrize(
    ('subscripts', 'left', 'right'),
    [
        ('bnd,df->bnf', (2, 3, 7), (7, 5)),
        ('bd,vd->bv', (2, 7), (5, 7)),
        ('bnd,gdv->bngv', (2, 3, 7), (4, 7, 5)),
        ('bngd,gdv->bngv', (2, 3, 4, 7), (4, 7, 5)),
        # The scale is neither the output's nor the input's.
        ('bij,ijo->bo', (2, 3, 7), (3, 7, 5)),
    ],
)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_einsum_multiplies_by_what_the_leaf_stands_for(
    subscripts, left, right, dtype
):
  x = jnp.asarray(_random(left, 1), dtype)
  w = _random(right)
  q = ops.quantize(w)
  found = ops.einsum(subscripts, x, q)
  assert found.dtype == dtype
  exact = jnp.einsum(subscripts, x.astype(jnp.float32), ops.materialize(q))
  size = jnp.einsum(subscripts, jnp.abs(x).astype(jnp.float32), jnp.abs(w))
  rounding = 1e-6 if dtype == jnp.float32 else 2e-2
  assert (np.abs(found.astype(jnp.float32) - exact) <= rounding * size).all()
  if dtype == jnp.float32:
    # By the quantisation alone: half a step for every product.
    step = jnp.broadcast_to(q.scale, q.shape)
    most = jnp.einsum(subscripts, jnp.abs(x), step / 2)
    error = np.abs(found - jnp.einsum(subscripts, x, w))
    assert (error <= most + 1e-5 * size).all()


def test_other_products():
  q = ops.quantize(_random((6, 5)))
  dense = ops.materialize(q)
  ids = np.array([[0, 5], [3, 3]])
  np.testing.assert_array_equal(ops.take(q, ids), dense[ids])
  groups = ops.quantize(_random((2, 7, 5)))
  x, sizes = _random((4, 7), 1), jnp.array([1, 3])
  np.testing.assert_allclose(
      ops.ragged_dot(x, groups, sizes),
      ops.ragged_dot(x, ops.materialize(groups), sizes),
      rtol=1e-5,
  )
  kernel = ops.quantize(_random((3, 4, 5)))
  x = _random((2, 8, 4), 2)
  np.testing.assert_allclose(
      ops.conv(x, kernel), ops.conv(x, ops.materialize(kernel)), rtol=1e-5
  )
  # Below a low-rank update, and as one leaf of a tree.
  a, b = _random((6, 2), 3), _random((2, 5), 4)
  lora = ops.LoraTensor(q, a, b)
  x = _random((3, 6), 5)
  np.testing.assert_allclose(
      ops.einsum('bd,df->bf', x, lora), x @ (dense + a @ b), rtol=1e-4
  )
  shapes = ops.map_weights(lambda w: w.shape, {'q': q, 'lora': lora})
  assert shapes == {'q': (6, 5), 'lora': (6, 5)}
  assert len(jax.tree.leaves(q)) == 2
