"""Every mixer and perceptron takes `jax.jvp`, alone and over its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones import mixers as mixers_lib
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import bidirectional
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.streaming import lstm
from audiolm_jax.streaming import testing

SMALL = {
    'attention': attention.Attention(2, window=3),
    'bidirectional': bidirectional.Bidirectional(rg_lru.RgLru(heads=2)),
    'lstm': lstm.Lstm(1),
    'mamba2': mamba2.Mamba2(state_width=4, head_width=8, chunk=4),
    'rg_lru': rg_lru.RgLru(heads=2),
    's4d': s4d.S4d(4, form='scan'),
}
STACKS = {
    **{n: stack_lib.Stack(8, 1, (m,), None) for n, m in SMALL.items()},
    'moe': stack_lib.Stack(8, 1, (SMALL['attention'],), mlps.Moe(3, 2, 6)),
}


def test_all_mixers_are_here():
  assert set(SMALL) == set(mixers_lib.MIXERS)


@pytest.mark.parametrize('name', STACKS)
def test_forward_mode_agrees_with_reverse_mode(name):
  stack = STACKS[name]
  rng = np.random.default_rng(0)
  x, u, v = jnp.asarray(rng.normal(size=(3, 2, 5, 8)).astype(np.float32))
  mask = jnp.arange(5) < jnp.array([5, 3])[:, None]
  params = nn.meta.unbox(stack.init(jax.random.key(0), x, mask)['params'])

  def loss(x):
    y, _ = stack.apply({'params': params}, x, mask)
    return jnp.sum(jnp.where(mask[..., None], jnp.sin(y), 0))

  def numbers(x, u, v):
    gradient = jax.grad(loss)

    def along(x):
      return jax.jvp(loss, (x,), (u,))[1]

    def hessian(a):
      return jax.jvp(gradient, (x,), (a,))[1]

    return {
        'jvp': (along(x), jnp.vdot(gradient(x), u)),
        # The Hessian is symmetric, whichever way it is computed.
        'hessian': (jnp.vdot(v, hessian(u)), jnp.vdot(u, hessian(v))),
    }

  options = testing.quick_options()
  found = jax.jit(numbers, compiler_options=options)(x, u, v)
  for key, (a, b) in found.items():
    assert abs(a) > 1e-3, key
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3, err_msg=key)
