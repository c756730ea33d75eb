"""The stack: one function, however it is compiled and stepped."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import param_transforms
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.streaming import testing
from audiolm_jax.training import costs
from audiolm_jax.training import mesh as mesh_lib

D, N = 8, 7
SPEC = jax.ShapeDtypeStruct((D,), jnp.float32)
quick_jit = functools.partial(jax.jit, compiler_options=testing.quick_options())
NEAR = attention.Attention(2, window=3, sinks=True)
FAR = attention.Attention(2, 1, cache_length=16)
# A period of two, experts, and most of what a layer may have.
RICH = stack_lib.Stack(
    D,
    4,
    (NEAR, FAR),
    mlps.Moe(3, 2, 6, use_bias=True),
    norm='layer',
    norm_bias=True,
    positions='learned',
    max_positions=32,
    cross=attention.Cross(2, 1),
    adaptive='adaln_zero',
)
PLAIN = stack_lib.Stack(D, 4, (NEAR, FAR), mlps.Dense(6, 'gelu'))


def context(batch=2, seed=5):
  rng = np.random.default_rng(seed)
  return {
      'cross': rng.normal(size=(batch, 5, 6)).astype(np.float32),
      'cross_mask': np.arange(5) < 3 + np.arange(batch)[:, None],
      'film': rng.normal(size=(batch, 4)).astype(np.float32),
  }


def inputs(batch=2, length=N, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(batch, length, D)).astype(np.float32)
  num_frames = np.maximum(length - 2 * np.arange(batch), 1)
  return x, np.arange(length) < num_frames[:, None]


@functools.cache
def boxed(stack):
  x, mask = inputs()
  return quick_jit(stack.init)(jax.random.key(0), x, mask, context())['params']


@functools.cache
def moved(stack):
  """Parameters away from where they start, so that all of them matter."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda w: w + 0.3 * rng.normal(size=w.shape).astype(np.float32),
      nn.meta.unbox(boxed(stack)),
  )


def close(a, b, tolerance=1e-4):
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
          a, b, rtol=tolerance, atol=tolerance / 5
      ),
      a,
      b,
  )


def run(stack, params):
  """Outputs where valid, and their gradient."""
  x, mask = inputs()
  probe = inputs(seed=9)[0] * mask[..., None]

  def loss(params, x):
    y = stack.apply({'params': params}, x, mask)[0]
    y = jnp.where(mask[..., None], y, 0)
    return jnp.sum(y * probe), y

  return quick_jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)


@functools.cache
def plain_run():
  return run(PLAIN, moved(PLAIN))


CONTRACTS = {
    'scanned': PLAIN.clone(norm='layer', norm_bias=True, positions='learned'),
    'unrolled': stack_lib.Stack(
        D,
        2,
        (
            attention.Attention(2, mask_kind='block_causal', block=2, window=3),
            attention.Attention(2, window=2),
        ),
        None,
        norm_position='post',
        final_norm=False,
        positions='sinusoidal',
        adaptive='film',
        scan=False,
    ),
}


@pytest.mark.parametrize('name', CONTRACTS)
def test_streaming_contract(name):
  stack = CONTRACTS[name]
  steps = (2,) if stack.scan else (1, 2)
  testing.assert_streaming_contract(
      stack, SPEC, context=context(3), blocks=5, step_blocks=steps
  )


def test_scanned_equals_unrolled_and_rolls_back():
  params = moved(PLAIN)
  stack, flat = PLAIN.unroll(params)
  assert sorted(flat) == [*[f'layer_{i}' for i in range(4)], 'norm']
  (gradient, dx), outputs = run(stack, flat)
  (wanted, wanted_dx), wanted_outputs = plain_run()
  close(outputs, wanted_outputs)
  close(dx, wanted_dx)
  close(stack.roll(gradient)[1], wanted)
  back, same = stack.roll(flat)
  assert back == PLAIN
  jax.tree.map(np.testing.assert_array_equal, same, params)
  # A fresh one has the same parameters to begin with.
  shapes = jax.tree.map(jnp.shape, nn.meta.unbox(boxed(stack)))
  assert shapes == jax.tree.map(jnp.shape, flat)


@pytest.mark.parametrize(('remat', 'scan'), [('dots', True), ('full', False)])
def test_remat_changes_nothing(remat, scan):
  stack, params = PLAIN, moved(PLAIN)
  if not scan:
    stack, params = stack.unroll(params)
  (gradient, dx), outputs = run(stack.clone(remat=remat), params)
  if not scan:
    gradient = stack.roll(gradient)[1]
  close(((gradient, dx), outputs), plain_run())


def test_steps_past_the_room_are_those_of_a_window():
  """With kept positions, everything else that a layer has, and unrolled."""
  rich = RICH.clone(layers=2)
  params = moved(rich)
  x = inputs(length=20)[0]
  mask = np.ones((2, 20), bool)
  bounded = rich.clone(mixers=(NEAR, FAR.clone(window=5, sink_tokens=2)))
  want, _ = quick_jit(bounded.apply)({'params': params}, x, mask, context())
  resized = rich.with_cache_length(5, sink_tokens=2)
  assert resized.mixers[0] == NEAR
  stack, params = rich.unroll(params)
  step = quick_jit(
      lambda x, state: stack.apply(
          {'params': params}, x, mask[:, :1], state, context(), method='process'
      )
  )
  state = resized.initial_state(2, SPEC)
  for n in range(20):
    y, _, state = step(x[:, n : n + 1], state)
    np.testing.assert_allclose(y[:, 0], want[:, n], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(state['position'], 20)
  # A scanned stack's states are those of an unrolled one.
  other = stack.with_cache_length(5, 2).initial_state(2, SPEC)
  assert jax.tree.structure(other) == jax.tree.structure(state)


def test_no_two_layers_states_share_memory():
  leaves = jax.tree.leaves(PLAIN.initial_state(2, SPEC))
  pointers = {leaf.unsafe_buffer_pointer() for leaf in leaves}
  assert len(pointers) == len(leaves)


def test_dropout_needs_its_rng():
  params = moved(PLAIN)
  x, mask = inputs()
  dropping = PLAIN.clone(dropout=0.5)

  @functools.partial(quick_jit, static_argnums=0)
  def apply(stack, key):
    rngs = None if key is None else {'dropout': key}
    return stack.apply({'params': params}, x, mask, rngs=rngs)[0]

  plain = apply(PLAIN, None)
  np.testing.assert_array_equal(apply(dropping, None), plain)
  np.testing.assert_array_equal(apply(PLAIN, jax.random.key(0)), plain)
  one, two = (apply(dropping, jax.random.key(seed)) for seed in (0, 1))
  assert np.abs(one - plain).max() > 0.1 and np.abs(one - two).max() > 0.1
  np.testing.assert_array_equal(one, apply(dropping, jax.random.key(0)))


def test_every_layer_drops_its_own():
  """Half of what each of two layers adds: a quarter is left as it was."""
  stack = stack_lib.Stack(
      D, 2, (attention.Attention(2),), None, final_norm=False, dropout=0.5
  )
  x, _ = inputs(16, 9)
  mask = np.ones((16, 9), bool)
  y, _ = quick_jit(stack.apply)(
      {'params': moved(stack)}, x, mask, rngs={'dropout': jax.random.key(0)}
  )
  assert np.mean(np.asarray(y) == x) == pytest.approx(0.25, abs=0.05)


def test_losses_are_means_over_layers_and_sums_over_positions():
  params = moved(RICH)
  zero = jax.tree_util.tree_map_with_path(
      lambda path, w: w * 0 if 'router' in str(path) else w, params
  )
  x, mask = inputs()
  out = quick_jit(
      lambda p: RICH.apply(
          {'params': p}, x, mask, None, context(), method='transform'
      )
  )
  losses = out(zero).losses
  np.testing.assert_allclose(losses['load_balance'], mask.sum(1), rtol=1e-5)
  np.testing.assert_allclose(
      losses['router_z'], np.log(3) ** 2 * mask.sum(1), rtol=1e-5
  )
  assert out(params).state is None


def test_flops_are_those_of_the_experts_that_are_met():
  stack = RICH.clone(cross=None, adaptive='none', positions='none')
  x, mask = inputs()
  flat, unrolled = stack.unroll(nn.meta.unbox(boxed(stack)))
  batch, length = mask.shape
  positions = batch * length
  # 7 queries of a window of 3 are three chunks that look back at one more.
  near = 2 * positions * (4 * D * D) + 4 * batch * (3 * 3 * 6) * D
  far = 2 * positions * (3 * D * D) + 4 * batch * length**2 * D
  # top_k = 2 of 3 experts of three matrices, and the router.
  experts = 2 * positions * (2 * 3 * D * 6 + 3 * D)
  combined = 2 * positions * 2 * D
  hand = 2 * (near + far) + 4 * (experts + combined)
  for model, params in ((stack, nn.meta.unbox(boxed(stack))), (flat, unrolled)):
    found = costs.flops(
        lambda p, model=model: model.apply({'params': p}, x, mask)[0], params
    )
    assert found == hand


def test_low_rank_updates_reach_every_weight():
  params = moved(RICH)
  axes = mesh_lib.logical_axes(boxed(RICH))
  low = param_transforms.Lora(rank=2).init(jax.random.key(0), params, axes)
  rng = np.random.default_rng(0)

  def move(path, leaf):
    is_factor = str(path[-1]) in ('.a', '.b')
    noise = 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
    return leaf + noise if is_factor else leaf

  low = jax.tree_util.tree_map_with_path(move, low)
  merged = param_transforms.merge_update(low)
  x, mask = inputs()
  apply = quick_jit(lambda p: RICH.apply({'params': p}, x, mask, context())[0])
  got, want, base = (np.asarray(apply(p))[mask] for p in (low, merged, params))
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
  assert np.abs(want - base).max() > 0.1
