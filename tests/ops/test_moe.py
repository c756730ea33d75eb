"""Routing, dispatch and the closed forms of its losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import moe


def _logits(shape=(3, 7, 5), seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_routes_go_to_the_highest_logits():
  logits = _logits()
  chosen = moe.route(logits, 2)
  np.testing.assert_array_equal(
      chosen.experts, np.argsort(-logits, axis=-1)[..., :2]
  )
  np.testing.assert_allclose(np.sum(chosen.weights, axis=-1), 1, rtol=1e-6)
  every = moe.route(logits, 2, 'all')
  probability = jax.nn.softmax(logits, axis=-1)
  np.testing.assert_allclose(
      every.weights, np.sort(probability, axis=-1)[..., :-3:-1], rtol=1e-5
  )
  # Both agree where all are chosen.
  np.testing.assert_allclose(
      moe.route(logits, 5).weights,
      moe.route(logits, 5, 'all').weights,
      rtol=1e-5,
  )


def test_dispatch_takes_each_row_to_its_experts_and_back():
  """Expert e adds 100 e: what comes back says who has been met."""
  x = _logits((2, 4, 3))
  mask = np.array([[True] * 4, [True, True, False, False]])
  routing = moe.route(_logits((2, 4, 6), 1), 2)
  met = []

  def function(rows, sizes, expert):
    met.append(sizes)
    owner = np.repeat(np.arange(6), sizes)
    np.testing.assert_array_equal(expert[: len(owner)], owner)
    return rows + 100.0 * expert[:, None]

  y = moe.dispatch(x, mask, routing, 6, function)
  total = np.sum(routing.weights * routing.experts, axis=-1, keepdims=True)
  want = np.where(mask[..., None], x + 100.0 * total, 0)
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-4)
  assert int(met[0].sum()) == 2 * mask.sum()


def test_balance_is_one_if_uniform_and_the_number_of_experts_if_collapsed():
  mask = np.arange(8) < np.array([8, 4, 0])[:, None]
  zeros = np.zeros((3, 8, 4), np.float32)
  uniform = moe.load_balance(zeros, mask, moe.route(zeros, 2))
  np.testing.assert_allclose(uniform, [8, 4, 0], rtol=1e-6)
  one = np.zeros_like(zeros)
  one[..., 2] = 50.0
  collapsed = moe.load_balance(one, mask, moe.route(one, 1))
  np.testing.assert_allclose(collapsed, [4 * 8, 4 * 4, 0], rtol=1e-5)
  # Two choices, one probability: half of the choices fall on it.
  half = moe.load_balance(one, mask, moe.route(one, 2))
  np.testing.assert_allclose(half, [4 * 8 / 2, 4 * 4 / 2, 0], rtol=1e-5)


def test_balance_is_its_sum_written_out():
  logits = _logits((2, 6, 4))
  lengths = [6, 3]
  mask = np.arange(6) < np.array(lengths)[:, None]
  routing = moe.route(logits, 2)
  got = moe.load_balance(logits, mask, routing)
  for row, length in enumerate(lengths):
    p = np.asarray(jax.nn.softmax(logits[row, :length], axis=-1))
    total = 0.0
    for e in range(4):
      fraction = np.mean(np.asarray(routing.experts)[row, :length] == e)
      total += fraction * p[:, e].mean()
    assert float(got[row]) == pytest.approx(4 * total * length, rel=1e-5)


def test_the_gradient_of_balance_evens_out():
  """It acts through the probabilities, and masked positions have none."""
  logits = _logits((1, 6, 4)) + np.array([2.0, 0, 0, 0], np.float32)
  mask = np.arange(6)[None] < 4

  @jax.jit
  @jax.value_and_grad
  def loss(logits):
    return moe.load_balance(logits, mask, moe.route(logits, 1)).sum()

  value, gradient = loss(logits)
  assert (np.asarray(gradient[0, 4:]) == 0).all()
  assert (np.asarray(gradient[0, :4, 0]) > 0).all()
  moved = logits - 1.0 * np.asarray(gradient)
  assert loss(moved)[0] < value


def test_router_z_is_the_squared_logsumexp():
  mask = np.arange(7) < np.array([7, 2, 0])[:, None]
  zeros = np.zeros((3, 7, 5), np.float32)
  np.testing.assert_allclose(
      moe.router_z(zeros, mask), np.log(5) ** 2 * np.array([7, 2, 0]), rtol=1e-6
  )
  logits = _logits()
  each = np.log(np.exp(logits).sum(axis=-1)) ** 2
  np.testing.assert_allclose(
      moe.router_z(logits, mask), np.sum(each * mask, axis=1), rtol=1e-5
  )
  poisoned = jnp.where(mask[..., None], logits, jnp.nan)
  gradient = jax.jit(jax.grad(lambda x: moe.router_z(x, mask).sum()))(logits)
  assert np.isfinite(moe.router_z(poisoned, mask)).all()
  assert (np.asarray(gradient)[~mask] == 0).all()
