"""Attention against a loop in numpy, and against what must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import attention as attention_ops


def _inputs(batch=2, queries=5, keys=5, heads=4, groups=2, size=6):
  rng = np.random.default_rng(0)
  q = rng.normal(size=(batch, queries, heads, size)).astype(np.float32)
  k, v = rng.normal(size=(2, batch, keys, groups, size)).astype(np.float32)
  return q, k, v


def _sees(kind, window, block, query, key):
  inside = window is None or query - key < window
  if kind == 'causal':
    return key <= query and inside
  if kind == 'block_causal':
    return key < (query // block + 1) * block and inside
  return inside and (window is None or key - query < window)


def _reference(q, k, v, mask, valid):
  """One query at a time, in float64."""
  y = np.zeros(q.shape)
  batch, queries, heads, size = q.shape
  repeat = heads // k.shape[2]
  for b in range(batch):
    for n in range(queries):
      for h in range(heads):
        keys = [
            s for s in range(k.shape[1]) if valid[b, s] and _sees(*mask, n, s)
        ]
        if not keys:
          continue
        g = h // repeat
        scores = k[b, keys, g].astype(float) @ q[b, n, h] / np.sqrt(size)
        p = np.exp(scores - scores.max())
        y[b, n, h] = (p / p.sum()) @ v[b, keys, g]
  return y


@pytest.mark.parametrize(
    'mask',
    [
        ('causal', None, 1),
        ('bidirectional', None, 1),
        ('block_causal', None, 2),
        ('causal', 2, 1),
        ('bidirectional', 2, 1),
    ],
)
def test_attend_equals_a_loop_and_padding_may_hold_nan(mask):
  q, k, v = _inputs()
  valid = np.array([[True] * 5, [True, True, True, False, False]])
  expected = _reference(q, k, v, mask, valid)
  k[~valid], v[~valid] = np.nan, np.inf
  positions = jnp.arange(5)[None]
  seen = attention_ops.Mask(*mask)(positions, positions)
  y = attention_ops.attend(q, k, v, seen, valid)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_and_zero_at_invalid_keys():
  q, k, v = _inputs()
  valid = np.array([[True] * 5, [False] * 5])
  k[1], v[1] = np.nan, np.nan
  positions = jnp.arange(5)[None]
  seen = attention_ops.CAUSAL(positions, positions)

  def loss(q, k, v):
    return jnp.sum(attention_ops.attend(q, k, v, seen, valid) ** 2)

  for gradient in jax.grad(loss, argnums=(0, 1, 2))(q, k, v):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0
    assert np.abs(gradient[1]).max() == 0


def test_a_ring_holds_the_last_of_each_row():
  ring = jnp.zeros((2, 1, 3, 1))
  new = 1.0 + jnp.arange(10).reshape(2, 5, 1, 1)
  written = np.array(
      [[False, False, True, True, True], [True] * 2 + [False] * 3]
  )
  places = np.broadcast_to(np.arange(5), (2, 5))
  ring = attention_ops.write_ring(ring, new, places, written)
  found = attention_ops.ring_positions(jnp.array([5, 2]), 3)
  np.testing.assert_array_equal(found, [[3, 4, 2], [0, 1, -1]])
  np.testing.assert_array_equal(ring[:, 0, :, 0], [[4, 5, 3], [6, 7, 0]])


def test_nothing_attends_to_nothing():
  none = jnp.zeros((2, 0, 4, 8))
  y = attention_ops.attend(
      none, none, none, jnp.zeros((2, 0, 0), bool), jnp.zeros((2, 0), bool)
  )
  assert y.shape == (2, 0, 4, 8)


def _with_sinks(q, k, v, sinks, seen):
  """The softmax over keys and one more logit, which is then dropped."""
  repeat = q.shape[2] // k.shape[2]
  k, v = jnp.repeat(k, repeat, axis=2), jnp.repeat(v, repeat, axis=2)
  scores = jnp.einsum('bnhd,bshd->bhns', q, k) / np.sqrt(q.shape[-1])
  scores = jnp.where(seen[:, None], scores, -jnp.inf)
  sink = jnp.broadcast_to(sinks[:, None, None], (*scores.shape[:3], 1))
  p = jax.nn.softmax(jnp.concatenate([scores, sink], axis=-1), axis=-1)
  return jnp.einsum('bhns,bshd->bnhd', p[..., :-1], v)


def test_sinks_and_their_gradients_are_those_of_a_further_logit():
  """And a softmax over parts is one softmax."""
  q, k, v = _inputs()
  sinks = np.array([-1.0, 0.5, 3.0, 40.0], np.float32)
  positions = jnp.arange(5)[None]
  seen = attention_ops.CAUSAL(positions, positions)
  probe = np.random.default_rng(3).normal(size=q.shape).astype(np.float32)

  def parts(q, k, v, sinks):
    k, v = attention_ops.heads_first(k), attention_ops.heads_first(v)
    sides = [
        attention_ops.Part(q, k[:, :, s], v[:, :, s], seen[:, :, s])
        for s in (slice(0, 2), slice(2, None))
    ]
    y = attention_ops.attend_parts(sides, sinks)
    return jnp.sum(y * probe), y

  def whole(q, k, v, sinks):
    y = _with_sinks(q, k, v, sinks, seen)
    return jnp.sum(y * probe), y

  got, wanted = (
      jax.jit(jax.grad(f, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, sinks)
      for f in (parts, whole)
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      got,
      wanted,
  )
  # Sinks that are neither far above all keys nor far below have one.
  assert np.abs(got[0][3][:3]).min() > 1e-3


def test_long_causal_rows_are_attended_to_in_runs_of_queries():
  """300 positions: the same as all at once, gradients included."""
  q, k, v = _inputs(queries=300, keys=300)
  probe = np.random.default_rng(3).normal(size=q.shape).astype(np.float32)
  positions = jnp.arange(300)[None]
  valid = np.arange(300) < np.array([300, 170])[:, None]
  sinks = np.zeros(4, np.float32)

  def runs(q, k, v):
    keys = attention_ops.Keys(
        attention_ops.heads_first(k),
        attention_ops.heads_first(v),
        positions,
        valid,
    )
    y = attention_ops.attend_keys(
        q, positions, [keys], attention_ops.CAUSAL, sinks=sinks
    )
    return jnp.sum(y * probe), y

  def whole(q, k, v):
    seen = attention_ops.CAUSAL(positions, positions) & valid[:, None]
    part = attention_ops.Part(
        q, attention_ops.heads_first(k), attention_ops.heads_first(v), seen
    )
    y = attention_ops.attend_parts([part], sinks)
    return jnp.sum(y * probe), y

  got, want = (
      jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(q, k, v)
      for f in (runs, whole)
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      got,
      want,
  )
