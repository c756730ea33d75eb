"""Every multiplication by a weight: `einsum`, `conv`, `take`, `ragged_dot`.

Each takes a plain array, a `LoraTensor`, a `PackedTensor` or an `Int8Tensor`
(ops/weights.py).
The low-rank path multiplies by the factors one after the other, so that neither
w + ab nor its gradient is ever formed.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax.ops import ragged
from audiolm_jax.ops import sharding
from audiolm_jax.ops import weights


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
  if isinstance(w, weights.Int8Tensor):
    return _einsum_int8(subscripts, x, w)
  if not isinstance(w, weights.LoraTensor):
    kernel = weights.materialize(w, x.dtype)
    matrices = len(left) == len(right) == 2 and left[1] == right[0]
    if matrices and out == left[0] + right[1]:
      return _product(x, kernel)
    return jnp.einsum(subscripts, x, kernel)
  last = right[-1]
  rank = next(c for c in 'rzyxwq' if c not in subscripts)
  batch = right[: w.b.ndim - 2]
  a, b = f'{right[:-1]}{rank}', f'{batch}{rank}{last}'
  if last in out:
    first, second, middle = a, b, out.replace(last, rank)
    factors = (w.a, w.b)
  else:
    first, second = b, a
    kept = [c for c in left if c in out]
    middle = ''.join(kept) + rank
    factors = (w.b, w.a)
  low = jnp.einsum(f'{left},{first}->{middle}', x, factors[0].astype(x.dtype))
  update = jnp.einsum(
      f'{middle},{second}->{out}', low, factors[1].astype(x.dtype)
  )
  return einsum(subscripts, x, w.w) + w.scale * update


# Of one row's product: two are as good, 8 and more slower for small matrices.
_PARTS = 4


def _product(x, kernel):
  """x @ kernel; one row's on CPUs in parts that are added up.

  XLA's library divides a product of one row badly among cores. As a batch of
  products of neighbouring rows of the matrix it is 1.05 to 1.7 times as fast
  (matrices of 256 x 1024 to 4096 x 1024), which is the speed of generation. Of
  more rows it is slower.
  """
  rows, (width, features) = x.shape[0], kernel.shape
  if rows != 1 or width % _PARTS or x.dtype != jnp.float32 or not _on_cpu():
    return x @ kernel
  x = x.reshape(rows, _PARTS, -1)
  kernel = kernel.reshape(_PARTS, -1, features)
  return jnp.einsum('npd,pdf->pnf', x, kernel).sum(axis=0)


def _einsum_int8(subscripts, x, w):
  """Scales what there is less of: the result, or x where outputs are summed."""
  inputs, out = subscripts.split('->')
  left, right = inputs.split(',')
  letters = right[:-2] + right[-1]
  scale = jnp.squeeze(w.scale, -2)
  product = functools.partial(
      jnp.einsum, preferred_element_type=jnp.float32, optimize=False
  )
  values = w.values.astype(x.dtype)
  if set(letters) <= set(out):
    y = product(subscripts, x, values)
    y = product(f'{out},{letters}->{out}', y, scale)
  elif set(letters) <= set(left):
    scaled = product(f'{left},{letters}->{left}', x, scale)
    y = product(subscripts, scaled.astype(x.dtype), values)
  else:
    y = product(subscripts, x, weights.materialize(w, x.dtype))
  return y.astype(x.dtype)


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
  side, as next to the audio: see `_narrow_conv`.

  Args:
    x: input.
    w: kernel [width, C / groups, D].
    stride: in samples.
    padding: zeros before and after.
    dilation: spacing of the kernel's taps.
    groups: feature groups; use `depthwise_conv` where groups == C.
  """
  if isinstance(w, weights.LoraTensor) and groups == 1:
    low = conv(x, w.a, stride, padding, dilation)
    update = jnp.einsum('btr,rd->btd', low, w.b.astype(x.dtype))
    return conv(x, w.w, stride, padding, dilation) + w.scale * update
  kernel = weights.materialize(w, x.dtype)
  one_channel = stride == groups == 1 and 1 in kernel.shape[1:]
  if one_channel and kernel.shape[0] <= _MOST_TAPS and _on_cpu():
    return _rows(_narrow_conv(x, kernel, padding, dilation))
  return _rows(_wide_conv(x, kernel, stride, padding, dilation, groups))


# Above, shifted sums of a single channel are slower than a convolution.
_MOST_TAPS = 16


def _rows(y):
  """Outputs [B, ...] of a convolution: each device has those of its rows."""
  return sharding.constrain(y, ('batch',))


def _on_cpu() -> bool:
  return sharding.platform() == 'cpu'


def _wide_conv(x, kernel, stride, padding, dilation, groups):
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(stride,),
      padding=(padding,),
      rhs_dilation=(dilation,),
      dimension_numbers=('NWC', 'WIO', 'NWC'),
      feature_group_count=groups,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow_conv(x, kernel, padding, dilation):
  """A convolution from one channel, or to one, as shifted sums.

  2-3.5x faster than XLA's on CPUs, its gradient up to 1.6x slower: so this is
  for inference only.
  """
  pad = ((0, 0), padding, (0, 0))
  taps = kernel.shape[0]
  if kernel.shape[1] == 1:
    return depthwise_conv(x, kernel[:, 0], padding, dilation)
  y = jnp.pad(jnp.einsum('btc,kc->btk', x, kernel[:, :, 0]), pad)
  size = y.shape[1] - dilation * (taps - 1)
  return sum(
      y[:, i * dilation : i * dilation + size, i : i + 1] for i in range(taps)
  )


def _narrow_forward(x, kernel, padding, dilation):
  return _wide_conv(x, kernel, 1, padding, dilation, 1), (x, kernel)


def _narrow_backward(padding, dilation, saved, cotangent):
  _, pull = jax.vjp(
      lambda x, kernel: _wide_conv(x, kernel, 1, padding, dilation, 1), *saved
  )
  return pull(cotangent)


_narrow_conv.defvjp(_narrow_forward, _narrow_backward)


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
  if isinstance(w, weights.LoraTensor):
    low = conv2d(x, w.a, stride, padding, dilation)
    update = jnp.einsum('bhwr,rd->bhwd', low, w.b.astype(x.dtype))
    return conv2d(x, w.w, stride, padding, dilation) + w.scale * update
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
  kernel = weights.materialize(w, x.dtype)
  x = jnp.pad(x, ((0, 0), padding, (0, 0)))
  size = x.shape[1] - dilation * (kernel.shape[0] - 1)
  return sum(
      jax.lax.slice_in_dim(x, i * dilation, i * dilation + size, axis=1)
      * kernel[i]
      for i in range(kernel.shape[0])
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
  if isinstance(w, weights.LoraTensor):
    low = conv_transpose(x, w.a, stride)
    update = jnp.einsum('btr,rd->btd', low, w.b.astype(x.dtype))
    return conv_transpose(x, w.w, stride) + w.scale * update
  kernel = weights.materialize(w, x.dtype)
  # Where the kernel is larger than the sequence, moving it costs more.
  if x.shape[1] >= x.shape[2] and _on_cpu():
    return _rows(_conv_blocks(x, kernel, stride))
  if x.shape[1] <= _FEW and _on_cpu():
    # A step reads the kernel once; `_spread` would rewrite all of it first.
    frames = jax.lax.map(lambda tap: x @ tap, kernel)
    return _rows(_overlap_add(jnp.moveaxis(frames, 0, 2), stride))
  return _rows(_spread(x, kernel, stride))


# Positions of a step for which reading a kernel costs more than multiplying.
_FEW = 4


def _spread(x, kernel, stride):
  """`conv_transpose` as a product and overlap-add.

  Its gradient is 4x faster on CPUs than that of a convolution with dilated
  input, and 15x faster than that of `_conv_blocks`.
  """
  return _overlap_add(jnp.einsum('btc,wcd->btwd', x, kernel), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_blocks(x, kernel, stride):
  """`conv_transpose` as a convolution to whole blocks of `stride` outputs.

  Nothing is added up outside of it: 1.3-3x faster on CPUs than `_spread`, for
  inference only.
  """
  batch, time, channels = x.shape
  width, _, features = kernel.shape
  blocks = -(-width // stride)
  kernel = jnp.pad(kernel, ((0, blocks * stride - width), (0, 0), (0, 0)))
  kernel = kernel.reshape(blocks, stride, channels, features)[::-1]
  kernel = jnp.swapaxes(kernel, 1, 2).reshape(blocks, channels, -1)
  y = _wide_conv(x, kernel, 1, (blocks - 1, blocks - 1), 1, 1)
  y = y.reshape(batch, (time + blocks - 1) * stride, features)
  return y[:, : (time - 1) * stride + width]


def _blocks_forward(x, kernel, stride):
  return _spread(x, kernel, stride), (x, kernel)


def _blocks_backward(stride, saved, cotangent):
  _, pull = jax.vjp(lambda x, kernel: _spread(x, kernel, stride), *saved)
  return pull(cotangent)


_conv_blocks.defvjp(_blocks_forward, _blocks_backward)


def depthwise_conv_transpose(
    x: Float[Array, 'B T C'], w: weights.Weight, stride: int
) -> Float[Array, 'B S C']:
  """`conv_transpose` with one filter a channel, kernel [width, C]."""
  kernel = weights.materialize(w, x.dtype)
  if kernel.shape[0] < stride:
    raise ValueError(f'width {kernel.shape[0]} < stride {stride} leaves gaps')
  return _overlap_add(x[:, :, None] * kernel, stride)


def _overlap_add(frames, stride):
  """Sums frames [B, T, width, C] at T stride: [B, (T - 1) stride + width, C]."""
  batch, time, width, features = frames.shape
  if time == 0:
    return jnp.zeros((batch, 0, features), frames.dtype)
  blocks = -(-width // stride)
  extra = blocks * stride - width
  frames = jnp.pad(frames, ((0, 0), (0, 0), (0, extra), (0, 0)))
  frames = frames.reshape(batch, time, blocks, stride, features)
  y = sum(
      jnp.pad(frames[:, :, i], ((0, 0), (i, blocks - 1 - i), (0, 0), (0, 0)))
      for i in range(blocks)
  )
  y = y.reshape(batch, (time + blocks - 1) * stride, features)
  return y[:, : (time - 1) * stride + width]


def take(
    w: weights.Weight, ids: Int[Array, '*n'], dtype: jnp.dtype | None = None
) -> Float[Array, '*n D']:
  """Rows of an embedding [V, D], in `dtype` (default: the weight's)."""
  if isinstance(w, weights.LoraTensor):
    update = take(w.a, ids, dtype)
    update = update @ w.b.astype(update.dtype)
    return take(w.w, ids, dtype) + w.scale * update
  if isinstance(w, weights.PackedTensor):
    # The scale is shared by all rows, so rows are gathered packed.
    w = weights.PackedTensor(jnp.take(w.packed, ids, axis=0), w.scale[0])
  elif isinstance(w, weights.Int8Tensor):
    w = weights.Int8Tensor(jnp.take(w.values, ids, axis=0), w.scale[0])
  else:
    w = jnp.take(w, ids, axis=0)
  return weights.materialize(w, dtype)


def ragged_dot(
    x: Float[Array, 'N D'],
    w: weights.Weight,
    group_sizes: Int[Array, 'E'],
) -> Float[Array, 'N F']:
  """Rows of x, sorted by group, times their group's matrix w[e] [E, D, F].

  Rows beyond the sum of `group_sizes` belong to no group: they give zeros.
  """
  if isinstance(w, weights.LoraTensor):
    low = ragged_dot(x, w.a, group_sizes)
    update = ragged_dot(low, w.b, group_sizes)
    return ragged_dot(x, w.w, group_sizes) + w.scale * update
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
