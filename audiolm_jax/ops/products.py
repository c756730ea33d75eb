"""Every multiplication by a weight: `linear`, `conv`, `take` and the others.

Each takes a plain array or a `Leaf` of any kind (ops/weights.py). Where a leaf
has a low-rank form, its factors are multiplied one after the other, so that
neither w + ab nor its gradient is ever formed. Which kernel is quickest on CPUs
is chosen in ops/cpu.py.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax.ops import convolutions
from audiolm_jax.ops import cpu
from audiolm_jax.ops import ragged
from audiolm_jax.ops import sharding
from audiolm_jax.ops import weights

_INIT = nn.initializers.lecun_normal()


def linear(
    module: nn.Module,
    name: str,
    x: Float[Array, '*b D'],
    features: int,
    axes: tuple[str | None, str | None],
    use_bias: bool = False,
    init: Callable[..., Array] = _INIT,
) -> Float[Array, '*b F']:
  """x times a matrix of `module`, and its bias: the layer that all others use.

  Call it inside a compact method.

  Args:
    module: the module that owns the matrix [D, F] and the bias [F].
    name: the matrix's. The bias is 'NAME_bias', or where the name ends in
      'kernel' has 'bias' in its place.
    x: activations, whose dtype the result has.
    features: F.
    axes: logical axes of the matrix; the bias has the last one.
    use_bias: whether there is a bias, zero at the start.
    init: of the matrix, as in `nn.initializers`.
  """
  w = weights.weight(module, name, init, (x.shape[-1], features), axes)
  rows = 'abc'[: x.ndim - 1]
  y = einsum(f'{rows}d,df->{rows}f', x, w)
  if not use_bias:
    return y
  before, kernel, _ = name.rpartition('kernel')
  name = f'{before}bias' if kernel else f'{name}_bias'
  bias = weights.weight(
      module, name, nn.initializers.zeros, (features,), axes[1:]
  )
  return y + weights.materialize(bias, y.dtype)


def einsum(subscripts: str, x: Array, w: weights.Weight) -> Array:
  """`jnp.einsum(subscripts, x, w)` in x's dtype for any kind of weight.

  Args:
    subscripts: 'x,w->out'. A low-rank weight needs its batch letters first; its
      last letter may be an output ('btd,df->btf') or contracted, as when
      embeddings are tied ('btd,vd->btv').
    x: activations.
    w: the weight.
  """
  inputs, out = subscripts.split('->')
  left, right = inputs.split(',')
  shared = [a == b and a not in right for a, b in zip(left, out, strict=False)]
  count = [*shared, False].index(False)
  if count > 1:
    # As one axis: the gradient of w would else move all of x's axes first,
    # which costs as much as a product on CPUs.
    flat = x.reshape(-1, *x.shape[count:])
    merged = f'{left[count - 1:]},{right}->{out[count - 1:]}'
    y = einsum(merged, flat, w)
    return y.reshape(*x.shape[:count], *y.shape[1:])
  parts = weights.low_rank(w)
  if parts is not None:
    update = _low_rank_einsum(left, right, out, x, parts)
    return einsum(subscripts, x, parts.base) + parts.scale * update
  y = w.einsum(subscripts, x) if weights.is_weight(w) else None
  if y is not None:
    return y
  kernel = weights.materialize(w, x.dtype)
  matrices = len(left) == len(right) == 2 and left[1] == right[0]
  if matrices and out == left[0] + right[1]:
    return cpu.product(x, kernel) if _on_cpu() else x @ kernel
  return jnp.einsum(subscripts, x, kernel)


def _low_rank_einsum(left, right, out, x, parts):
  """x times a, times b; the other way round where outputs are contracted."""
  last = right[-1]
  rank = next(c for c in 'rzyxwq' if c not in left + right + out)
  batch = right[: parts.b.ndim - 2]
  a, b = f'{right[:-1]}{rank}', f'{batch}{rank}{last}'
  if last in out:
    first, second, middle = a, b, out.replace(last, rank)
    factors = (parts.a, parts.b)
  else:
    first, second = b, a
    middle = ''.join(c for c in left if c in out) + rank
    factors = (parts.b, parts.a)
  low = jnp.einsum(f'{left},{first}->{middle}', x, factors[0].astype(x.dtype))
  return jnp.einsum(
      f'{middle},{second}->{out}', low, factors[1].astype(x.dtype)
  )


def _adapted(parts, product, up):
  """A product with a low-rank weight: product(base) + scale up(product(a), b)."""
  update = up(product(parts.a), parts.b)
  return product(parts.base) + parts.scale * update


def conv(
    x: Float[Array, 'B T C'],
    w: weights.Weight,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, 'B S D']:
  """Channels-last 1-D convolution (cross-correlation) with zero padding.

  XLA's is the fastest form on CPUs but where there is a single channel on one
  side, as next to the audio: see `cpu.narrow_conv`.

  Args:
    x: input.
    w: kernel [width, C / groups, D].
    stride: in samples.
    padding: zeros before and after.
    dilation: spacing of the kernel's taps.
    groups: feature groups; use `depthwise_conv` where groups == C.
  """
  parts = weights.low_rank(w)
  if parts is not None and groups == 1:
    return _adapted(
        parts,
        lambda k: conv(x, k, stride, padding, dilation),
        lambda low, b: jnp.einsum('btr,rd->btd', low, b.astype(x.dtype)),
    )
  kernel = weights.materialize(w, x.dtype)
  if stride == groups == 1 and cpu.is_narrow(kernel) and _on_cpu():
    return _rows(cpu.narrow_conv(x, kernel, padding, dilation))
  return _rows(convolutions.conv(x, kernel, stride, padding, dilation, groups))


def _rows(y):
  """Outputs [B, ...] of a convolution: each device has those of its rows."""
  return sharding.constrain(y, ('batch',))


def _on_cpu() -> bool:
  return sharding.platform() == 'cpu'


def conv2d(
    x: Float[Array, 'B H W C'],
    w: weights.Weight,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, 'B h w D']:
  """Channels-last 2-D convolution (cross-correlation) with zero padding.

  Args:
    x: input.
    w: kernel [height, width, C, D].
    stride: for each output position, along H and W.
    padding: zeros before and after, along H and W.
    dilation: spacing of the kernel's taps, along H and W.
  """
  parts = weights.low_rank(w)
  if parts is not None:
    return _adapted(
        parts,
        lambda k: conv2d(x, k, stride, padding, dilation),
        lambda low, b: jnp.einsum('bhwr,rd->bhwd', low, b.astype(x.dtype)),
    )
  y = jax.lax.conv_general_dilated(
      x,
      weights.materialize(w, x.dtype),
      window_strides=stride,
      padding=padding,
      rhs_dilation=dilation,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return _rows(y)


def depthwise_conv(
    x: Float[Array, 'B T C'],
    w: weights.Weight,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
) -> Float[Array, 'B S C']:
  """One filter a channel, kernel [width, C], stride 1.

  Shifted multiply-adds: 50x faster forward and 15x in the gradient than XLA's
  grouped convolution on CPUs, and fused by every backend.
  """
  return convolutions.depthwise_conv(
      x, weights.materialize(w, x.dtype), padding, dilation
  )


def conv_transpose(
    x: Float[Array, 'B T C'], w: weights.Weight, stride: int
) -> Float[Array, 'B S D']:
  """Transposed 1-D convolution.

  Args:
    x: input.
    w: kernel [width, C, D], with width >= stride.
    stride: output samples for each input one.

  Returns:
    [B, (T - 1) * stride + width, D], nothing trimmed.
  """
  width = w.shape[0]
  if width < stride:
    raise ValueError(f'width {width} < stride {stride} would leave gaps')
  parts = weights.low_rank(w)
  if parts is not None:
    return _adapted(
        parts,
        lambda k: conv_transpose(x, k, stride),
        lambda low, b: jnp.einsum('btr,rd->btd', low, b.astype(x.dtype)),
    )
  kernel = weights.materialize(w, x.dtype)
  if _on_cpu():
    return _rows(cpu.conv_transpose(x, kernel, stride))
  return _rows(convolutions.spread(x, kernel, stride))


def depthwise_conv_transpose(
    x: Float[Array, 'B T C'], w: weights.Weight, stride: int
) -> Float[Array, 'B S C']:
  """`conv_transpose` with one filter a channel, kernel [width, C]."""
  kernel = weights.materialize(w, x.dtype)
  if kernel.shape[0] < stride:
    raise ValueError(f'width {kernel.shape[0]} < stride {stride} leaves gaps')
  return convolutions.overlap_add(x[:, :, None] * kernel, stride)


def take(
    w: weights.Weight, ids: Int[Array, '*n'], dtype: jnp.dtype | None = None
) -> Float[Array, '*n D']:
  """Rows of an embedding [V, D], in `dtype` (default: the weight's)."""
  parts = weights.low_rank(w)
  if parts is not None:
    return _adapted(
        parts,
        lambda k: take(k, ids, dtype),
        lambda low, b: low @ b.astype(low.dtype),
    )
  rows = w.rows(ids) if weights.is_weight(w) else jnp.take(w, ids, axis=0)
  return weights.materialize(rows, dtype)


def ragged_dot(
    x: Float[Array, 'N D'],
    w: weights.Weight,
    group_sizes: Int[Array, 'E'],
) -> Float[Array, 'N F']:
  """Rows of x, sorted by group, times their group's matrix w[e] [E, D, F].

  Rows beyond the sum of `group_sizes` belong to no group: they give zeros.
  """
  parts = weights.low_rank(w)
  if parts is not None:
    return _adapted(
        parts,
        lambda k: ragged_dot(x, k, group_sizes),
        lambda low, b: ragged_dot(low, b, group_sizes),
    )
  kernel = weights.materialize(w, x.dtype)
  if _on_cpu():
    return ragged.ragged_dot(x, kernel, group_sizes)
  return jax.lax.ragged_dot(x, kernel, group_sizes)


def weight_norm(
    v: weights.Weight, g: Float[Array, 'n'], axis: int = -1
) -> Array:
  """g v / |v| over all axes but one (Salimans & Kingma 2016, eq. 2)."""
  v = weights.materialize(v)
  shape = [1] * v.ndim
  shape[axis] = -1
  norms = jnp.maximum(axis_norms(v, axis), 1e-12)
  return v * (g / norms).reshape(shape)


def axis_norms(v: Array, axis: int = -1) -> Float[Array, 'n']:
  """|v| over all axes but one."""
  rest = tuple(i for i in range(v.ndim) if i != axis % v.ndim)
  return jnp.sqrt(jnp.sum(jnp.square(v), axis=rest))
