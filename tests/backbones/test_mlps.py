"""Perceptrons against their formulae; mixtures against a loop over experts."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones import mlps
from audiolm_jax.streaming import testing

quick_jit = functools.partial(jax.jit, compiler_options=testing.quick_options())


def _inputs(seed=0, shape=(2, 5, 4)):
  x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  return x, np.arange(shape[1]) < np.array([shape[1], 3])[:, None]


def _params(layer, x, mask, seed=0):
  params = quick_jit(layer.init)(jax.random.key(seed), x, mask)['params']
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda w: w + rng.normal(size=w.shape).astype(np.float32) / 3,
      nn.meta.unbox(params),
  )


_ERF = np.vectorize(math.erf)
_FORMULAE = {
    'gelu': lambda up, _: up * (1 + _ERF(up / np.sqrt(2))) / 2,
    'gelu_tanh': lambda up, _: (
        up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
    ),
    'relu': lambda up, _: np.maximum(up, 0),
    'silu': lambda up, _: up / (1 + np.exp(-up)),
    'swiglu': lambda up, gate: up * gate / (1 + np.exp(-gate)),
    'clamped_swiglu': lambda up, gate: (
        (np.clip(up, -0.7, 0.7) + 1)
        * np.minimum(gate, 0.7)
        / (1 + np.exp(-1.5 * np.minimum(gate, 0.7)))
    ),
}


@pytest.mark.parametrize('activation', _FORMULAE)
@pytest.mark.parametrize('use_bias', [False, True])
def test_dense_is_its_formula(activation, use_bias):
  layer = mlps.Dense(6, activation, 0.7, 1.5, use_bias)
  x, mask = _inputs()
  params = _params(layer, x, mask)
  assert len(params) == (3 if 'glu' in activation else 2) * (1 + use_bias)
  got, losses = quick_jit(layer.apply)({'params': params}, x, mask)
  assert losses == {}
  p = {k: np.asarray(v, np.float64) for k, v in params.items()}

  def linear(y, name):
    return y @ p[name] + p.get(f'{name}_bias', 0.0) if name in p else None

  h = _FORMULAE[activation](linear(x, 'up'), linear(x, 'gate'))
  np.testing.assert_allclose(got, linear(h, 'down'), rtol=1e-4, atol=1e-5)


MOE = mlps.Moe(
    experts=5,
    top_k=2,
    hidden=6,
    activation='clamped_swiglu',
    limit=0.7,
    use_bias=True,
    router_bias=True,
)


@pytest.fixture(scope='module', name='params')
def _moe_params():
  return _params(MOE, *_inputs())


def _loop(params, x, mask):
  """Every expert on every position, weighted by the softmax of the chosen."""
  logits = x @ params['router'] + params['router_bias']
  kept = logits >= jnp.sort(logits, axis=-1)[..., -2:-1]
  weights = jax.nn.softmax(jnp.where(kept, logits, -jnp.inf), axis=-1)
  y = 0.0
  for e in range(5):
    up = x @ params['up'][e] + params['up_bias'][e]
    gate = x @ params['gate'][e] + params['gate_bias'][e]
    h = mlps.activate('clamped_swiglu', up, gate, 0.7, 1.702)
    z = h @ params['down'][e] + params['down_bias'][e]
    y += weights[..., e : e + 1] * z
  return jnp.where(mask[..., None], y, 0)


def test_a_mixture_is_a_loop_over_experts_gradients_included(params):
  x, mask = _inputs()
  probe = _inputs(1)[0]

  def total(function):
    def loss(params, x):
      y = function(params, x)
      return jnp.sum(y * probe), y

    return quick_jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

  got = total(lambda p, x: MOE.apply({'params': p}, x, mask)[0])
  want = total(lambda p, x: _loop(p, x, mask))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      got,
      want,
  )


def test_no_capacity_drops_anything(params):
  """All positions choose the same two experts."""
  x, mask = _inputs()
  bias = np.array([9.0, 0.0, 0.0, 8.0, 0.0], np.float32)
  params = {**params, 'router_bias': bias}
  got, _ = quick_jit(MOE.apply)({'params': params}, x, mask)
  np.testing.assert_allclose(got, _loop(params, x, mask), rtol=1e-4, atol=1e-5)
  assert (np.abs(np.asarray(got)[mask]).max(axis=-1) > 0).all()


def test_positions_are_equivariant_and_experts_are_a_set(params):
  x, mask = _inputs()
  mask = np.ones_like(mask)
  apply = quick_jit(MOE.apply)
  y, losses = apply({'params': params}, x, mask)
  order = [3, 0, 4, 1, 2]
  moved, _ = apply({'params': params}, x[:, order], mask)
  np.testing.assert_allclose(moved, y[:, order], rtol=1e-5, atol=1e-6)
  swapped = {
      k: w[..., order] if 'router' in k else w[np.array(order)]
      for k, w in params.items()
  }
  again, same = apply({'params': swapped}, x, mask)
  np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-6)
  for name, loss in losses.items():
    np.testing.assert_allclose(same[name], loss, rtol=1e-5)


def test_what_is_masked_goes_nowhere_and_losses_add_over_rows(params):
  x, mask = _inputs()
  apply = quick_jit(MOE.apply)
  y, losses = apply({'params': params}, x, mask)
  assert (np.asarray(y)[~mask] == 0).all()
  other = np.where(mask[..., None], x, 7.0)
  z, same = apply({'params': params}, other, mask)
  np.testing.assert_array_equal(z, y)
  for row, length in enumerate(mask.sum(axis=1)):
    alone, alone_losses = apply(
        {'params': params}, x[[row], :length], mask[[row], :length]
    )
    np.testing.assert_allclose(alone[0], y[row, :length], rtol=1e-5, atol=1e-6)
    for name, loss in losses.items():
      assert loss.shape == (2,)
      np.testing.assert_array_equal(same[name], loss)
      np.testing.assert_allclose(alone_losses[name][0], loss[row], rtol=1e-5)


def test_a_router_that_knows_nothing_has_the_losses_of_a_uniform_one(params):
  x, mask = _inputs()
  params = {
      **params,
      'router': params['router'] * 0,
      'router_bias': np.zeros(5),
  }
  _, losses = quick_jit(MOE.apply)({'params': params}, x, mask)
  np.testing.assert_allclose(losses['load_balance'], [5, 3], rtol=1e-6)
  np.testing.assert_allclose(
      losses['router_z'], np.log(5) ** 2 * np.array([5, 3]), rtol=1e-6
  )


def test_more_choices_than_experts_are_refused():
  with pytest.raises(ValueError, match='top_k = 3 of 2 experts'):
    mlps.Moe(2, 3).init(jax.random.key(0), *_inputs())
