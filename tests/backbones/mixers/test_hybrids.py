"""Stacks that mix attention with state spaces."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.streaming import lstm
from audiolm_jax.streaming import testing

_SPEC = jax.ShapeDtypeStruct((8,), jnp.float32)
_ATTENTION = attention.Attention(heads=2, window=4)
_MAMBA = mamba2.Mamba2(state_width=3, head_width=4, chunk=3)
_GRIFFIN = (rg_lru.RgLru(heads=2), _ATTENTION)


def test_hybrid_keeps_the_streaming_contract():
  stack = stack_lib.Stack(
      8,
      4,
      (_MAMBA, _ATTENTION, s4d.S4d(state_width=4), lstm.Lstm(1, skip=False)),
      mlps.Dense(12),
      scan=False,
  )
  # Single steps are what the donated state is for.
  testing.assert_streaming_contract(stack, _SPEC, step_blocks=(4,))


def test_scanned_hybrid_is_the_unrolled_one():
  stack = stack_lib.Stack(8, 4, _GRIFFIN, mlps.Dense(12))
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 7, 8)).astype(np.float32)
  mask = np.ones((2, 7), bool)
  quick = testing.quick_options()
  boxed = jax.jit(stack.init, compiler_options=quick)(
      jax.random.key(0), x, mask
  )
  params = nn.meta.unbox(boxed)['params']
  plain, layers = stack.unroll(params)

  def run(stack, params):
    apply = jax.jit(stack.apply, compiler_options=quick)
    return np.asarray(apply({'params': params}, x, mask)[0])

  actual, expected = run(plain, layers), run(stack, params)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_hybrids_are_lists_in_a_config():
  built = config.build(
      stack_lib.Stack,
      {
          'width': 8,
          'layers': 3,
          'mixers': [
              {'kind': 'mamba2', 'head_width': 4},
              {'kind': 's4d'},
              {'kind': 'rg_lru', 'heads': 2},
          ],
      },
  )
  kinds = [type(mixer).__name__ for mixer in built.mixers]
  assert kinds == ['Mamba2', 'S4d', 'RgLru']
  assert config.build(stack_lib.Stack, config.to_config(built)) == built
