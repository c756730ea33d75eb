"""ops.products: every operation, with every kind of weight, against dense maths."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from audiolm_jax import ops
from audiolm_jax.ops import weights


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), 'float32')


def _lora(w, batch=0, rank=3, packed=False):
  """A low-rank leaf with a non-zero update over `batch` leading axes."""
  a = _random(*w.shape[:-1], rank, seed=1)
  b = _random(*w.shape[:batch], rank, w.shape[-1], seed=2)
  return ops.LoraTensor(ops.pack(w) if packed else w, a, b, 0.5)


class Halved(weights.Leaf):
  """A kind that the package does not know."""

  half: jax.Array

  @property
  def shape(self):
    return self.half.shape

  def dense(self):
    return 2 * self.half


KINDS = ('array', 'packed', 'lora', 'lora over packed', 'of its own')


def _kinds(w, batch=0):
  return {
      'of its own': Halved(w / 2),
      'array': w,
      'packed': ops.pack(w),
      'lora': _lora(w, batch),
      'lora over packed': _lora(w, batch, packed=True),
  }


def _dense(w):
  """Independent of `materialize`: numpy, factor by factor."""
  if isinstance(w, ops.LoraTensor):
    base = _dense(w.w)
    if w.b.ndim == 2:
      return base + w.scale * np.einsum('...r,ro->...o', w.a, w.b)
    return base + w.scale * np.einsum('e...r,ero->e...o', w.a, w.b)
  if isinstance(w, ops.PackedTensor):
    packed = np.asarray(w.packed).astype(int)
    nibbles = np.concatenate([packed % 16, packed // 16], axis=-1)
    return (nibbles - 8) * np.asarray(w.scale)
  return 2 * np.asarray(w.half) if isinstance(w, Halved) else np.asarray(w)


def _close(x, y):
  np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'subscripts, x, w, batch',
    [
        ('btd,df->btf', (2, 5, 4), (4, 6), 0),
        ('btd,df->btf', (1, 1, 8), (8, 6), 0),  # one row, in parts
        ('btd,df->btf', (1, 1, 7), (7, 6), 0),  # which do not divide it
        ('bd,de->be', (1, 8), (8, 8), 0),
        ('btd,vd->btv', (2, 5, 4), (6, 4), 0),  # tied embeddings
        ('btd,vd->btv', (1, 1, 4), (4, 4), 0),
        ('btkd,kdv->btkv', (2, 5, 3, 4), (3, 4, 6), 1),  # slots
    ],
)
def test_einsum(kind, subscripts, x, w, batch):
  x, w = _random(*x, seed=3), _kinds(_random(*w), batch)[kind]
  want = np.einsum(subscripts, np.asarray(x), _dense(w))
  _close(ops.einsum(subscripts, x, w), want)


class _Linear(nn.Module):
  name_of: str = 'query'
  use_bias: bool = True

  @nn.compact
  def __call__(self, x):
    axes = ('embed', 'heads')
    return ops.linear(self, self.name_of, x, 6, axes, self.use_bias)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('leading', [(3,), (2, 5), (2, 3, 4)])
def test_linear(kind, leading):
  x, w, bias = _random(*leading, 4), _random(4, 6, seed=1), _random(6, seed=2)
  params = {'query': _kinds(w)[kind], 'query_bias': bias}
  want = np.asarray(x) @ _dense(params['query'])
  _close(_Linear().apply({'params': params}, x), want + bias)
  plain = _Linear(use_bias=False).apply({'params': params}, x)
  _close(plain, want)
  half = _Linear().apply({'params': params}, x.astype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16


def test_linear_starts_at_fan_in_without_offset_and_is_cut_by_its_axes():
  x = _random(7, 4096)
  made = _Linear().init(jax.random.key(0), x)['params']
  assert set(made) == {'query', 'query_bias'}
  assert made['query'].names == ('embed', 'heads')
  assert made['query_bias'].names == ('heads',)
  params = nn.meta.unbox(made)
  assert not np.any(params['query_bias'])
  assert float(jnp.std(params['query'])) == pytest.approx(4096**-0.5, rel=0.02)
  assert set(_Linear(use_bias=False).init(jax.random.key(0), x)['params']) == {
      'query'
  }


@pytest.mark.parametrize(
    'name, bias', [('kernel', 'bias'), ('mix_kernel', 'mix_bias')]
)
def test_linear_names_the_bias_of_a_kernel_for_it(name, bias):
  params = _Linear(name).init(jax.random.key(0), _random(2, 4))['params']
  assert set(params) == {name, bias}


def test_gradient_of_one_row_is_that_of_a_product():
  x, w, cotangent = _random(1, 8), _random(8, 6), _random(1, 6, seed=1)
  _, pull = jax.vjp(lambda x, w: ops.einsum('nd,df->nf', x, w), x, w)
  d_x, d_w = pull(cotangent)
  _close(d_x, np.asarray(cotangent) @ np.asarray(w).T)
  _close(d_w, np.asarray(x).T @ np.asarray(cotangent))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (1, 3)])
def test_conv_matches_scipy(kind, stride, dilation):
  x, w = _random(2, 20, 3), _kinds(_random(4, 3, 6, seed=4))[kind]
  dense = _dense(w)
  spread = np.zeros((3 * dilation + 1, 3, 6))
  spread[::dilation] = dense
  padded = np.pad(x, ((0, 0), (5, 2), (0, 0)))
  want = np.stack(
      [
          sum(
              scipy.signal.correlate(padded[b, :, i], spread[:, i, o], 'valid')
              for i in range(3)
          )
          for b in range(2)
          for o in range(6)
      ]
  )
  want = want.reshape(2, 6, -1).transpose(0, 2, 1)[:, ::stride]
  _close(ops.conv(x, w, stride, (5, 2), dilation), want)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'stride, dilation', [((1, 1), (1, 1)), ((1, 2), (2, 1)), ((3, 1), (1, 2))]
)
def test_conv2d_matches_scipy(kind, stride, dilation):
  x, w = _random(2, 9, 11, 3), _kinds(_random(3, 4, 3, 6, seed=4))[kind]
  high, wide = dilation
  spread = np.zeros((2 * high + 1, 3 * wide + 1, 3, 6))
  spread[::high, ::wide] = _dense(w)
  padded = np.pad(x, ((0, 0), (2, 1), (4, 3), (0, 0)))
  want = np.zeros((2, *np.subtract(padded.shape[1:3], spread.shape[:2]) + 1, 6))
  for b, i, o in np.ndindex(2, 3, 6):
    want[b, ..., o] += scipy.signal.correlate2d(
        padded[b, ..., i], spread[..., i, o], 'valid'
    )
  want = want[:, :: stride[0], :: stride[1]]
  _close(ops.conv2d(x, w, stride, ((2, 1), (4, 3)), dilation), want)


def _value_and_gradients(function, *args):
  y, pull = jax.vjp(function, *args)
  return y, *pull(_random(*y.shape, seed=9))


@pytest.mark.parametrize('kind', ['array', 'lora'])
@pytest.mark.parametrize('channels', [(1, 6), (3, 1), (1, 1)])
@pytest.mark.parametrize('padding, dilation', [((0, 0), 1), ((5, 2), 3)])
def test_conv_of_one_channel_is_a_convolution(
    kind, channels, padding, dilation
):
  x, w = _random(2, 20, channels[0]), _random(4, *channels, seed=4)
  leaf = _lora(w) if kind == 'lora' else w
  dense = jnp.asarray(_dense(leaf), 'float32')

  def general(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1,),
        (padding,),
        rhs_dilation=(dilation,),
        dimension_numbers=('NWC', 'WIO', 'NWC'),
    )

  def ours(x, w):
    return ops.conv(x, w, 1, padding, dilation)

  _close(jax.jit(ours)(x, leaf), general(x, dense))
  for got, want in zip(
      _value_and_gradients(ours, x, dense),
      _value_and_gradients(general, x, dense),
      strict=True,
  ):
    _close(got, want)


@pytest.mark.parametrize('time', [1, 9])  # a product; a convolution
@pytest.mark.parametrize('width, stride', [(4, 2), (5, 2), (3, 3), (7, 3)])
def test_conv_transpose_is_a_convolution_with_holes(time, width, stride):
  x, w = _random(2, time, 3), _random(width, 3, 6, seed=6)

  def general(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w[::-1],
        (1,),
        ((width - 1, width - 1),),
        lhs_dilation=(stride,),
        dimension_numbers=('NWC', 'WIO', 'NWC'),
    )

  def ours(x, w):
    return ops.conv_transpose(x, w, stride)

  _close(jax.jit(ours)(x, w), general(x, w))
  for got, want in zip(
      _value_and_gradients(ours, x, w),
      _value_and_gradients(general, x, w),
      strict=True,
  ):
    _close(got, want)


@pytest.mark.parametrize('kind', ['array', 'packed', 'lora'])
def test_depthwise_conv_equals_grouped_conv(kind):
  x, w = _random(2, 11, 4), _kinds(_random(3, 4, seed=5))[kind]
  want = ops.conv(
      x, jnp.asarray(_dense(w), 'float32')[:, None], 1, (4, 0), 2, groups=4
  )
  _close(ops.depthwise_conv(x, w, (4, 0), 2), want)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('width, stride', [(4, 2), (5, 2), (3, 3), (7, 3)])
def test_conv_transpose_is_the_adjoint_of_conv(kind, width, stride):
  w = _kinds(_random(width, 3, 6, seed=6))[kind]
  x = _random(2, 5, 3)
  y = ops.conv_transpose(x, w, stride)
  assert y.shape == (2, 4 * stride + width, 6)
  forward = jnp.asarray(_dense(w), 'float32').transpose(0, 2, 1)
  probe = _random(*y.shape, seed=7)
  back = ops.conv(probe, forward, stride)
  _close(jnp.sum(y * probe), jnp.sum(x * back))


@pytest.mark.parametrize('kind', KINDS)
def test_take(kind):
  w = _kinds(_random(7, 4))[kind]
  ids = jnp.array([[0, 6], [3, 3]])
  _close(ops.take(w, ids), _dense(w)[np.asarray(ids)])


@pytest.mark.parametrize('kind', KINDS)
def test_ragged_dot(kind):
  x, w = _random(6, 4), _kinds(_random(3, 4, 8), batch=1)[kind]
  groups = np.array([2, 0, 3])
  dense = _dense(w)
  owner = np.repeat(np.arange(3), groups)
  want = np.stack(
      [x[i] @ dense[e] for i, e in enumerate(owner)] + [np.zeros(8)]
  )
  _close(ops.ragged_dot(x, w, jnp.asarray(groups)), want)


def test_lora_gradient_reaches_the_factors_of_every_operation():
  w = _lora(_random(4, 6))

  def loss(w):
    return jnp.sum(jnp.square(ops.einsum('td,df->tf', _random(5, 4), w)))

  def dense_loss(a, b):
    return jnp.sum(jnp.square(_random(5, 4) @ (w.w + w.scale * a @ b)))

  got = jax.grad(loss)(w)
  want = jax.grad(dense_loss, (0, 1))(w.a, w.b)
  _close(got.a, want[0])
  _close(got.b, want[1])


def test_weight_norm_of_a_low_rank_weight_norms_their_sum():
  w, g = _lora(_random(3, 2, 4)), jnp.arange(1.0, 5.0)
  normed = ops.weight_norm(w, g)
  _close(jnp.sqrt(jnp.sum(jnp.square(normed), axis=(0, 1))), g)
  direction = _dense(w)[..., 0].ravel()
  _close(normed[..., 0].ravel(), direction / np.linalg.norm(direction))


def test_pack_rounds_to_half_a_step_and_refuses_odd_widths():
  w = _random(5, 6)
  step = jnp.max(jnp.abs(w), axis=0) / 7
  packed = ops.pack(w)
  assert packed.packed.dtype == jnp.uint8 and packed.packed.shape == (5, 3)
  error = jnp.abs(ops.materialize(packed) - w)
  assert bool(jnp.all(error <= step / 2 + 1e-6)) and float(error.max()) > 0
  with pytest.raises(ValueError, match='even'):
    ops.pack(_random(5, 3))


class _Layer(nn.Module):

  @nn.compact
  def __call__(self, x, _):
    w = ops.weight(self, 'w', nn.initializers.normal(), (4, 4), ('in', 'out'))
    return x + ops.einsum('bd,de->be', x, w), None


class _Stack(nn.Module):

  @nn.compact
  def __call__(self, x):
    layers = nn.scan(
        nn.remat(_Layer),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        length=3,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return layers(name='layers')(x, None)[0]


@pytest.mark.parametrize('kind', ['packed', 'lora', 'lora over packed'])
def test_weight_passes_any_leaf_through_scan_and_remat(kind):
  x = _random(2, 4)
  boxed = _Stack().init(jax.random.key(0), x)
  assert boxed['params']['layers']['w'].names == ('layers', 'in', 'out')
  w = nn.meta.unbox(boxed)['params']['layers']['w'] * 50
  leaf = _kinds(w, batch=1)[kind]
  got = _Stack().apply({'params': {'layers': {'w': leaf}}}, x)
  want = np.asarray(x)
  for layer in _dense(leaf):
    want = want + want @ layer
  _close(got, want)


def test_weight_refuses_another_logical_shape():
  leaf = _lora(_random(3, 4, 5), batch=1)
  with pytest.raises(ValueError, match=r'layers/w has shape \(4, 5\)'):
    _Stack().apply({'params': {'layers': {'w': leaf}}}, _random(2, 4))
