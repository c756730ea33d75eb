"""The transformer of codecs: its contract, its options, its refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.streaming import testing
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.training import mesh as mesh_lib

SPEC = jax.ShapeDtypeStruct((8,), jnp.float32)
MASK = np.ones((2, 5), bool)


def make(layers=2, heads=2, mlp_width=6, **options):
  return transformer_lib.Transformer(layers, heads, mlp_width, **options)


def noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def apply(layer, params, x, mask=MASK):
  run = jax.jit(layer.apply, compiler_options=testing.quick_options())
  return run({'params': params}, x, mask)[0]


def init(layer):
  run = jax.jit(layer.init, compiler_options=testing.quick_options())
  return run(jax.random.key(0), noise(2, 5, 8), MASK)['params']


def test_steps_are_the_whole():
  layer = make(window=2, layer_scale=0.5, norm='rms')
  assert layer.receptive_field == 3
  testing.assert_streaming_contract(layer, SPEC)


@pytest.mark.parametrize('rotary', ['time', 'heads', 'none'])
def test_without_a_window_it_is_a_layer(rotary):
  layer = make(1, causal=False, rotary=rotary, use_bias=True)
  assert not layer.steppable
  testing.assert_layer_contract(layer, SPEC)


def test_positions_count_what_rotary_says():
  """In another order, positions of time matter; the rest does not."""
  x = noise(2, 5, 8)
  for rotary, moved in (('time', True), ('heads', False), ('none', False)):
    layer = make(1, causal=False, kv_heads=1, rotary=rotary)
    params = nn.meta.unbox(init(layer))
    y, back = apply(layer, params, x), apply(layer, params, x[:, ::-1])
    difference = np.abs(y - back[:, ::-1]).max()
    assert (difference > 1e-3) == moved, rotary
    if rotary == 'heads':
      # Of one key head only one query head turns as it does.
      other = apply(layer.clone(rotary='none'), params, x)
      assert np.abs(y - other).max() > 1e-3


def test_branches_start_at_their_scale():
  """A scale of 0 leaves x alone; of 1 it is the block without one."""
  x = noise(2, 5, 8)
  plain = make()
  params = nn.meta.unbox(init(plain))
  scaled = nn.meta.unbox(init(make(layer_scale=1.0)))
  names = {'attention_scale', 'mlp_scale'}
  assert names <= set(scaled['block_0']) and not names & set(params['block_0'])
  y = apply(make(layer_scale=1.0), scaled, x)
  np.testing.assert_allclose(y, apply(plain, params, x), rtol=1e-5, atol=1e-5)
  none = nn.meta.unbox(init(make(layer_scale=0.0)))
  np.testing.assert_array_equal(apply(make(layer_scale=0.0), none, x), x)


def test_a_window_without_causality_is_refused():
  with pytest.raises(ValueError, match='window is causal'):
    init(make(window=2, causal=False))
  with pytest.raises(ValueError, match='multiple of the next'):
    init(make(heads=3))


def test_low_rank_updates_reach_every_weight():
  layer = make(kv_heads=1, window=3, activation='swiglu')
  boxed = init(layer)
  lora = param_transforms.Lora(rank=2, alpha=4.0)
  zero = lora.init(
      jax.random.key(1), nn.meta.unbox(boxed), mesh_lib.logical_axes(boxed)
  )

  def move(w):
    if not isinstance(w, ops.LoraTensor):
      return w
    return w.replace(b=noise(*w.b.shape, seed=2))

  moved, x = ops.map_weights(move, zero), noise(2, 5, 8)
  low = apply(layer, moved, x)
  merged = apply(layer, param_transforms.merge_update(moved), x)
  np.testing.assert_allclose(low, merged, rtol=1e-4, atol=1e-4)
  assert np.abs(low - apply(layer, zero, x)).max() > 1e-3
