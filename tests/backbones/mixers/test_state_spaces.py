"""S4D, Mamba-2 and RG-LRU as mixers of a decoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.backbones.mixers import short_conv
from audiolm_jax.streaming import testing
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import optimizers

_WIDTH = 8
_SPEC = jax.ShapeDtypeStruct((_WIDTH,), jnp.float32)
_CHUNK = 4
MIXERS = {
    's4d': s4d.S4d(state_width=6),
    's4d scan': s4d.S4d(state_width=6, form='scan'),
    'mamba2': mamba2.Mamba2(
        state_width=5, head_width=4, groups=2, chunk=_CHUNK
    ),
    'mamba2 bounded': mamba2.Mamba2(
        expand=1,
        state_width=3,
        head_width=2,
        chunk=_CHUNK,
        conv_width=2,
        dt_floor=0.05,
        dt_ceiling=0.5,
        use_bias=True,
        conv_bias=False,
    ),
    'rg_lru': rg_lru.RgLru(inner=12, heads=3),
    'rg_lru plain': rg_lru.RgLru(heads=2, use_bias=False),
}
# One of each kind, for what does not depend on options.
PLAIN = ('mamba2', 'rg_lru', 's4d')


def _jit(function):
  return jax.jit(function, compiler_options=testing.quick_options())


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope='module', name='variables')
def _variables():
  """Of every mixer, boxed; each leaf is moved from its start."""
  found = {}
  for name, mixer in MIXERS.items():
    x, mask = jnp.zeros((1, 2, _WIDTH)), jnp.ones((1, 2), bool)
    boxed = _jit(mixer.init)(jax.random.key(0), x, mask)
    found[name] = jax.tree.map(
        lambda w: w + 0.1 * _random(*w.shape, seed=w.size), boxed
    )
  return found


@pytest.mark.parametrize('name', [*PLAIN, 's4d scan'])
def test_mixer_keeps_the_streaming_contract(name):
  # More than two chunks, whose ends steps of 3 meet and miss.
  testing.assert_streaming_contract(
      MIXERS[name], _SPEC, blocks=10, step_blocks=(1, 3)
  )


def test_short_convolution_keeps_the_streaming_contract():
  layer = short_conv.ShortConv(3)
  testing.assert_streaming_contract(layer, _SPEC, step_blocks=(1, 2, 5))


@pytest.mark.parametrize('name', MIXERS)
def test_rows_go_on_from_prompts_of_different_lengths(name, variables):
  mixer, given = MIXERS[name], nn.meta.unbox(variables[name])
  x, num_frames = _random(4, 17, _WIDTH), np.array([9, 2, 0, 5])
  whole, _ = _jit(mixer.apply)(given, x, np.ones((4, 17), bool))
  step = _jit(lambda *a: mixer.apply(*a, None, method='step'))
  prompt = np.where(
      (np.arange(9) < num_frames[:, None])[..., None], x[:, :9], np.nan
  )
  state = mixer.initial_state(4, _SPEC)
  _, _, state = step(given, prompt, np.arange(9) < num_frames[:, None], state)
  for i in range(5):
    # Each row goes on from its own length; a masked step changes nothing.
    now = np.take_along_axis(x, (num_frames + i)[:, None, None], axis=1)
    held = np.zeros((4, 1), bool)
    _, _, same = step(given, np.full_like(now, np.nan), held, state)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    y, _, state = step(given, now, ~held, state)
    expected = whole[np.arange(4), num_frames + i]
    scale = np.abs(whole).max()
    np.testing.assert_allclose(y[:, 0], expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('name', PLAIN)
def test_activations_are_narrow_and_the_recurrence_is_not(name, variables):
  mixer, given = MIXERS[name], nn.meta.unbox(variables[name])
  x, mask = _random(2, 9, _WIDTH), np.ones((2, 9), bool)
  spec = jax.ShapeDtypeStruct((_WIDTH,), jnp.bfloat16)
  state = mixer.initial_state(2, spec)
  narrow = _jit(lambda *a: mixer.apply(*a, None, method='step'))
  y, _, after = narrow(given, x.astype(jnp.bfloat16), mask, state)
  assert y.dtype == jnp.bfloat16
  assert jax.tree.map(lambda s: s.dtype, after) == jax.tree.map(
      lambda s: s.dtype, state
  )
  wide, _ = _jit(mixer.apply)(given, x, mask)
  error = np.abs(y.astype(np.float32) - wide).max() / np.abs(wide).max()
  assert 1e-5 < error < 0.05


@pytest.mark.parametrize('name', PLAIN)
def test_low_rank_updates_reach_every_matrix(name, variables):
  boxed = variables[name]['params']
  axes, params = mesh_lib.logical_axes(boxed), nn.meta.unbox(boxed)
  wrapped = param_transforms.Lora(rank=2).init(jax.random.key(1), params, axes)
  leaves = jax.tree.leaves(wrapped, is_leaf=_is_low_rank)
  # Projections, gates and convolutions; nothing of the recurrence.
  count = {'mamba2': 3, 'rg_lru': 6, 's4d': 1}[name]
  assert sum(map(_is_low_rank, leaves)) == count
  moved = ops.map_weights(
      lambda w: (
          w.replace(b=_random(*w.b.shape, seed=w.b.size))
          if _is_low_rank(w)
          else w
      ),
      wrapped,
  )
  x, mask = _random(2, 7, _WIDTH), np.ones((2, 7), bool)
  run = _jit(lambda params: MIXERS[name].apply({'params': params}, x, mask)[0])
  low, merged = run(moved), run(param_transforms.merge_update(moved))
  scale = np.abs(merged).max()
  assert np.abs(low - run(params)).max() > 0.1 * scale
  np.testing.assert_allclose(low, merged, rtol=0, atol=1e-5 * scale)


def _is_low_rank(leaf):
  return isinstance(leaf, ops.LoraTensor)


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
@pytest.mark.parametrize('name', PLAIN)
def test_weight_decay_leaves_the_recurrence_alone(name, kind, variables):
  boxed = variables[name]['params']
  axes = mesh_lib.flat_axes(mesh_lib.logical_axes(boxed))
  params = nn.meta.unbox(boxed)
  optimizer = optimizers.OPTIMIZERS[kind](weight_decay=0.5)
  transformation = optimizer.build(optax.constant_schedule(0.1), axes)
  zeros = jax.tree.map(jnp.zeros_like, params)
  update = _jit(
      lambda p: transformation.update(zeros, transformation.init(p), p)[0]
  )
  decayed = {
      mesh_lib.key(path)
      for path, change in jax.tree_util.tree_leaves_with_path(update(params))
      if np.abs(change).max() > 0
  }
  expected = {
      'mamba2': {'input', 'out', 'conv.kernel'},
      'rg_lru': {
          *('input', 'gate', 'out', 'conv.kernel'),
          *('recurrence_gate', 'input_gate'),
      },
      's4d': {'out'},
  }
  assert decayed == expected[name]


def _start(mixer, width):
  x, mask = jnp.zeros((1, 2, width)), jnp.ones((1, 2), bool)
  return nn.meta.unbox(_jit(mixer.init)(jax.random.key(0), x, mask)['params'])


def test_step_sizes_and_rates_start_where_the_papers_have_them():
  mamba = _start(mamba2.Mamba2(head_width=1, state_width=2), 256)
  steps = jax.nn.softplus(mamba['dt_bias'])
  log_steps = np.log(steps)
  assert np.all((steps > 0.99e-3) & (steps < 1.01e-1))
  # Log-uniform: its mean and its spread.
  assert abs(log_steps.mean() - np.log(1e-2)) < 0.2
  assert abs(log_steps.std() - np.log(100) / 12**0.5) < 0.1
  rates = np.exp(mamba['log_rate'])
  assert rates.min() > 0.99 and rates.max() < 16.01 and rates.mean() > 7

  kept = np.exp(-8 * jax.nn.softplus(_start(rg_lru.RgLru(), 512)['rate']))
  assert kept.min() > 0.899 and kept.max() < 0.9991
  assert abs(kept.mean() - 0.9495) < 0.005

  step_layout = _start(s4d.S4d(state_width=8), 256)
  log_steps = step_layout['log_dt']
  assert log_steps.min() >= np.log(1e-3) and log_steps.max() <= np.log(1e-1)
  assert abs(log_steps.mean() - np.log(1e-2)) < 0.2
  np.testing.assert_allclose(-np.exp(step_layout['log_decay']), -0.5, rtol=1e-6)
  np.testing.assert_allclose(
      step_layout['frequency'][7], np.pi * np.arange(4), rtol=1e-6
  )


def test_heads_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='heads must fill the width'):
    mamba2.Mamba2(head_width=5).initial_state(1, _SPEC)
  with pytest.raises(ValueError, match='groups 3'):
    mamba2.Mamba2(head_width=4, groups=3).initial_state(1, _SPEC)
  with pytest.raises(ValueError, match='3 heads do not divide'):
    _start(rg_lru.RgLru(heads=3), _WIDTH)
