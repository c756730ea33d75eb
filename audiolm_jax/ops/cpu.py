"""Products and convolutions as they are quickest on CPUs.

Each equals what `linear` would do elsewhere; the ratios are of 2 cores.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax.ops import convolutions
from audiolm_jax.ops import linear_maps

# Of one row's product: two are as good, 8 and more slower for small matrices.
_PARTS = 4
# Above, shifted sums of a single channel are slower than a convolution.
_MOST_TAPS = 16
# Positions of a step for which reading a kernel costs more than multiplying.
_FEW = 4


def product(
    x: Float[Array, 'N C'], kernel: Float[Array, 'C D']
) -> Float[Array, 'N D']:
  """x @ kernel; one row's in parts that are added up.

  XLA's library divides a product of one row badly among cores. As a batch of
  products of neighbouring rows of the matrix it is 1.05 to 1.7 times as fast
  (matrices of 256 x 1024 to 4096 x 1024), which is the speed of generation. Of
  more rows it is slower.
  """
  rows, (width, features) = x.shape[0], kernel.shape
  if rows != 1 or width % _PARTS or x.dtype != jnp.float32:
    return x @ kernel
  x = x.reshape(rows, _PARTS, -1)
  kernel = kernel.reshape(_PARTS, -1, features)
  return jnp.einsum('npd,pdf->pnf', x, kernel).sum(axis=0)


def is_narrow(kernel: Float[Array, 'w C D']) -> bool:
  """Whether `narrow_conv` takes it, and is faster."""
  return 1 in kernel.shape[1:] and kernel.shape[0] <= _MOST_TAPS


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def narrow_conv(
    x: Float[Array, 'B T C'],
    kernel: Float[Array, 'w C D'],
    padding: tuple[int, int],
    dilation: int,
) -> Float[Array, 'B S D']:
  """A convolution from one channel, or to one, as shifted sums.

  2-3.5x faster than XLA's on CPUs, its gradient up to 1.6x slower: so this is
  for inference only.
  """
  pad = ((0, 0), padding, (0, 0))
  taps = kernel.shape[0]
  if kernel.shape[1] == 1:
    return convolutions.depthwise_conv(x, kernel[:, 0], padding, dilation)
  y = jnp.pad(jnp.einsum('btc,kc->btk', x, kernel[:, :, 0]), pad)
  size = y.shape[1] - dilation * (taps - 1)
  return sum(
      y[:, i * dilation : i * dilation + size, i : i + 1] for i in range(taps)
  )


@functools.partial(narrow_conv.defjvp, symbolic_zeros=True)
def _narrow_jvp(padding, dilation, primals, tangents):
  return _jvp(
      lambda x, kernel: convolutions.conv(x, kernel, 1, padding, dilation, 1),
      primals,
      tangents,
  )


def conv_transpose(
    x: Float[Array, 'B T C'], kernel: Float[Array, 'w C D'], stride: int
) -> Float[Array, 'B S D']:
  """See `linear.conv_transpose`."""
  # Where the kernel is larger than the sequence, moving it costs more.
  if x.shape[1] >= x.shape[2]:
    return conv_blocks(x, kernel, stride)
  if x.shape[1] <= _FEW:
    # A step reads the kernel once; spreading would rewrite all of it first.
    frames = jax.lax.map(lambda tap: x @ tap, kernel)
    return convolutions.overlap_add(jnp.moveaxis(frames, 0, 2), stride)
  return convolutions.spread(x, kernel, stride)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def conv_blocks(
    x: Float[Array, 'B T C'], kernel: Float[Array, 'w C D'], stride: int
) -> Float[Array, 'B S D']:
  """`conv_transpose` as a convolution to whole blocks of `stride` outputs.

  Nothing is added up outside of it: 1.3-3x faster on CPUs than `convolutions.spread`, for
  inference only.
  """
  batch, time, channels = x.shape
  width, _, features = kernel.shape
  blocks = -(-width // stride)
  kernel = jnp.pad(kernel, ((0, blocks * stride - width), (0, 0), (0, 0)))
  kernel = kernel.reshape(blocks, stride, channels, features)[::-1]
  kernel = jnp.swapaxes(kernel, 1, 2).reshape(blocks, channels, -1)
  y = convolutions.conv(x, kernel, 1, (blocks - 1, blocks - 1), 1, 1)
  y = y.reshape(batch, (time + blocks - 1) * stride, features)
  return y[:, : (time - 1) * stride + width]


@functools.partial(conv_blocks.defjvp, symbolic_zeros=True)
def _blocks_jvp(stride, primals, tangents):
  return _jvp(
      lambda x, kernel: convolutions.spread(x, kernel, stride),
      primals,
      tangents,
  )


def _jvp(function, primals, tangents):
  """`jax.jvp` in those arguments that have tangents."""
  moving = {
      i: tangent
      for i, tangent in enumerate(tangents)
      if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
  }
  return linear_maps.jvp_of_some(function, primals, moving)
