"""What streaming layers compute, against numpy, scipy and each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax import streaming
from audiolm_jax.ops import rotary
from audiolm_jax.streaming import activations
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.training import costs
from audiolm_jax.training import mesh as mesh_lib

_QUICK = {'xla_backend_optimization_level': 0}


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _apply(layer, params, x, mask):
  """Compiled: operations one by one would each be compiled, too."""
  apply = jax.jit(layer.apply, compiler_options=_QUICK)
  return apply({'params': params}, x, mask)


def _whole(layer, x, lengths=None, params=None):
  lengths = [x.shape[1]] * x.shape[0] if lengths is None else lengths
  mask = streaming.length_mask(jnp.array(lengths), x.shape[1])
  return _apply(layer, params or {}, x, mask)


@pytest.mark.parametrize('up, down', [(3, 2), (2, 3), (160, 441), (4, 2)])
def test_resample_is_scipys(up, down):
  x, lengths = _random(2, 900, 2), [900, 701]
  y, mask = _whole(streaming.Resample(up, down), x, lengths)
  for row, length in enumerate(lengths):
    expected = scipy.signal.resample_poly(x[row, :length], up, down, axis=0)
    count = int(mask[row].sum())
    assert count == len(expected) == -(-length * up // down)
    np.testing.assert_allclose(y[row, :count], expected, atol=2e-6)


@pytest.mark.parametrize('factor', [1, 2, 3, 4])
def test_linear_upsampling_interpolates_between_centres(factor):
  x = _random(1, 5, 1)
  y, mask = _whole(streaming.Upsample(factor, 'linear'), x)
  at = (np.arange(5 * factor) + 0.5) / factor - 0.5
  expected = np.interp(at, np.arange(5), x[0, :, 0])
  np.testing.assert_allclose(y[0, :, 0], expected, atol=1e-6)
  assert mask.all()


def test_linear_upsampling_holds_the_end_of_each_row():
  x = _random(1, 5, 1)
  y, mask = _whole(streaming.Upsample(4, 'linear'), x, [3])
  alone, _ = _whole(streaming.Upsample(4, 'linear'), x[:, :3])
  assert mask.sum() == 12
  np.testing.assert_allclose(y[:, :12], alone, atol=1e-6)


def test_average_pool_leaves_out_what_does_not_exist():
  x = _random(1, 6, 2)
  y, mask = _whole(streaming.AveragePool(3), x, [4])
  np.testing.assert_allclose(y[0, 0], x[0, :3].mean(0), rtol=1e-5)
  np.testing.assert_allclose(y[0, 1], x[0, 3], rtol=1e-5)
  np.testing.assert_array_equal(mask, [[True, True]])


def test_snake_and_snake_beta():
  x = 3 * _random(2, 4, 3)
  alpha, beta = np.array([0.3, 1.0, 4.0]), np.array([1.5, 0.5, 2.0])
  y, _ = _whole(streaming.Snake(), x, params={'alpha': alpha})
  expected = x + np.sin(alpha * x) ** 2 / (alpha + 1e-9)
  np.testing.assert_allclose(y, expected, atol=2e-6)
  logs = {'alpha': np.log(alpha), 'beta': np.log(beta)}
  y, _ = _whole(streaming.Snake(separate=True, log_scale=True), x, params=logs)
  expected = x + np.sin(alpha * x) ** 2 / (beta + 1e-9)
  np.testing.assert_allclose(y, expected, atol=2e-6)


def test_sin_squared_and_its_gradient():
  x = np.linspace(-400, 400, 200_001).astype(np.float32)
  both = jax.vmap(jax.value_and_grad(activations.sin_squared))
  y, gradient = jax.jit(both)(x)
  exact = x.astype(np.float64)
  np.testing.assert_allclose(y, np.sin(exact) ** 2, atol=5e-7)
  np.testing.assert_allclose(gradient, np.sin(2 * exact), atol=2e-6)


def test_elu_and_its_gradient():
  small = np.logspace(-7, 2.5, 2001)
  x = np.concatenate([-small, [0, -np.inf, np.nan], small]).astype(np.float32)
  y, gradient = jax.jit(jax.vmap(jax.value_and_grad(activations.elu)))(x)
  exact = x.astype(np.float64)
  expected = np.where(x > 0, exact, np.expm1(exact))
  np.testing.assert_allclose(y, expected, rtol=5e-7, atol=1e-10)
  slope = np.where(x > 0, 1, np.exp(exact))
  np.testing.assert_allclose(gradient, slope, atol=2e-7)
  narrow = jnp.asarray(x[:2002], jnp.bfloat16)
  y = activations.elu(narrow)
  assert y.dtype == jnp.bfloat16
  expected = np.expm1(np.asarray(narrow, np.float64))
  np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=4e-3)


def test_norms_are_their_formulae():
  x, factor = _random(2, 4, 3), np.array([0.5, 2.0, -1.0], np.float32)
  y, _ = _whole(streaming.RmsNorm(1e-3), x, params={'scale': factor})
  rms = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
  np.testing.assert_allclose(y, factor * x / rms, rtol=1e-5)
  y, _ = _whole(streaming.Scale(), x, params={'scale': factor})
  np.testing.assert_allclose(y, factor * x, rtol=1e-6)
  params = {'scale': factor, 'bias': 1 + factor}
  y, _ = _whole(streaming.Affine(), x, params=params)
  np.testing.assert_allclose(y, factor * x + 1 + factor, rtol=1e-5)


def test_time_group_norm_has_unit_moments_on_valid_positions():
  x = 5 + 3 * _random(1, 40, 4)
  params = {'scale': np.ones(4), 'bias': np.zeros(4)}
  y, _ = _whole(streaming.TimeGroupNorm(2), x, [30], params)
  valid = np.asarray(y)[0, :30].reshape(30, 2, 2)
  np.testing.assert_allclose(valid.mean((0, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(valid.std((0, 2)), 1, atol=1e-4)


def test_repeat_is_the_layers_one_after_the_other():
  body = streaming.Residual(streaming.Conv(3, 3))
  x, mask = _random(2, 7, 3), np.ones((2, 7), bool)
  stack = streaming.Repeat(body, 3)
  boxed = jax.jit(stack.init)(jax.random.key(0), x, mask)
  names = boxed['params']['body']['body']['kernel'].names
  assert names == ('layers', None, 'channels_in', 'channels_out')
  variables = nn.meta.unbox(boxed)
  y, _ = _apply(stack, variables['params'], x, mask)
  expected = x
  for i in range(3):
    params = jax.tree.map(lambda p: p[i], variables['params']['body'])  # noqa: B023
    expected, _ = _apply(body, params, expected, mask)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  # The compiler sees one layer, and the costs count three.
  once = jax.eval_shape(body.init, jax.random.key(0), x, mask)
  flops = [
      costs.flops(layer.apply, nn.meta.unbox(v), x, mask)
      for layer, v in ((stack, variables), (body, once))
  ]
  assert flops[0] == 3 * flops[1]


def test_branches_and_repeats_that_cannot_be_are_refused():
  differ = streaming.Parallel((streaming.Dense(2), streaming.AveragePool(2)))
  with pytest.raises(ValueError, match='output_ratio: Dense 1, AveragePool 1/'):
    _ = differ.output_ratio
  late = streaming.Serial(
      (streaming.Upsample(2, 'linear'), streaming.AveragePool(2))
  )
  with pytest.raises(ValueError, match='lags by 1'):
    _ = late.output_latency
  lags = streaming.Parallel((streaming.Resample(4, 1), streaming.Upsample(4)))
  with pytest.raises(ValueError, match='output_latency: Resample'):
    _ = lags.output_latency
  with pytest.raises(ValueError, match='changes the rate'):
    _ = streaming.Repeat(streaming.Upsample(2), 2).output_ratio
  with pytest.raises(ValueError, match='cannot be repeated'):
    _whole(streaming.Repeat(streaming.Dense(3), 2), _random(1, 2, 4))


@pytest.mark.parametrize('scale', [1.0, 0.25])
@pytest.mark.parametrize('groups', [1, 4, 256])
def test_convolutions_start_with_the_declared_variance(groups, scale):
  layer = streaming.Conv(256, 5, groups=groups, init_scale=scale)
  # Beyond the first outputs, which see the zeros before the start.
  x, mask = _random(1, 200, 256), np.ones((1, 200), bool)
  init = jax.jit(layer.init, compiler_options=_QUICK)
  params = nn.meta.unbox(init(jax.random.key(0), x, mask))['params']
  y, _ = _apply(layer, params, x, mask)
  assert np.var(y[:, 5:]) == pytest.approx(scale, rel=0.1)


def test_rotation_is_exact_after_weeks():
  position = np.array([[1_900_000_123]])
  cos, sin = rotary.Rope(10_000.0).rotation(jnp.asarray(position), 8)
  angle = position[0, 0] * 10_000.0 ** (-np.arange(4) / 4)
  np.testing.assert_allclose(cos[0, 0, 0], np.cos(angle), atol=2e-5)
  np.testing.assert_allclose(sin[0, 0, 0], np.sin(angle), atol=2e-5)


@pytest.mark.parametrize(
    'layer',
    [
        streaming.Lstm(1, bidirectional=True),
        streaming.Repeat(
            streaming.Parallel((streaming.Dense(4), streaming.Conv(4, 2))), 2
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_low_rank_updates_reach_every_weight(layer):
  x, mask = _random(2, 5, 4), np.ones((2, 5), bool)
  init = jax.jit(layer.init, compiler_options=_QUICK)
  boxed = init(jax.random.key(0), x, mask)['params']
  base = nn.meta.unbox(boxed)
  lora = param_transforms.Lora(rank=2, alpha=4.0)
  zero = lora.init(jax.random.key(1), base, mesh_lib.logical_axes(boxed))
  rng = np.random.default_rng(0)

  def move(w):
    if not isinstance(w, ops.LoraTensor):
      return w
    b = rng.normal(size=w.b.shape).astype(np.float32)
    return w.replace(b=b)

  moved = ops.map_weights(move, zero)
  plain, _ = _apply(layer, base, x, mask)
  same, _ = _apply(layer, zero, x, mask)
  low, _ = _apply(layer, moved, x, mask)
  merged, _ = _apply(layer, param_transforms.merge_update(moved), x, mask)
  np.testing.assert_allclose(same, plain, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(low, merged, rtol=1e-4, atol=1e-4)
  assert np.abs(low - plain).max() > 0.01


def test_rows_are_picked_also_where_leaves_have_all_of_them_twice():
  old = {'once': np.arange(6).reshape(3, 2), 'twice': np.arange(6)}
  new = {'once': old['once'] + 10, 'twice': old['twice'] + 10}
  found = streaming_base.pick_rows(np.array([True, False, True]), new, old)
  assert found['once'].tolist() == [[10, 11], [2, 3], [14, 15]]
  assert found['twice'].tolist() == [10, 1, 12, 13, 4, 15]
  none = {'once': np.zeros((0, 2))}
  picked = streaming_base.pick_rows(np.zeros(0, bool), none, none)
  assert picked['once'].shape == (0, 2)
