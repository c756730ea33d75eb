"""Convolutions as sums of products, for every backend."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conv(
    x: Float[Array, 'B T C'],
    kernel: Float[Array, 'w c D'],
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    groups: int,
) -> Float[Array, 'B S D']:
  """XLA's convolution, channels last; see `linear.conv`."""
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(stride,),
      padding=(padding,),
      rhs_dilation=(dilation,),
      dimension_numbers=('NWC', 'WIO', 'NWC'),
      feature_group_count=groups,
  )


def depthwise_conv(
    x: Float[Array, 'B T C'],
    kernel: Float[Array, 'w C'],
    padding: tuple[int, int],
    dilation: int,
) -> Float[Array, 'B S C']:
  """One filter a channel, as shifted multiply-adds."""
  x = jnp.pad(x, ((0, 0), padding, (0, 0)))
  size = x.shape[1] - dilation * (kernel.shape[0] - 1)
  return sum(
      jax.lax.slice_in_dim(x, i * dilation, i * dilation + size, axis=1)
      * kernel[i]
      for i in range(kernel.shape[0])
  )


def spread(
    x: Float[Array, 'B T C'], kernel: Float[Array, 'w C D'], stride: int
) -> Float[Array, 'B S D']:
  """`conv_transpose` as a product and overlap-add.

  Its gradient is 4x faster on CPUs than that of a convolution with dilated
  input, and 15x faster than that of `cpu.conv_blocks`.
  """
  return overlap_add(jnp.einsum('btc,wcd->btwd', x, kernel), stride)


def overlap_add(
    frames: Float[Array, 'B T w C'], stride: int
) -> Float[Array, 'B S C']:
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
