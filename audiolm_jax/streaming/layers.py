"""Streaming layers with parameters: convolutions, projections, norms."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.streaming import base


class CausalConv(base.Steppable):
  """Convolution whose window ends with its own block of `stride` samples.

  Attributes:
    features: output channels.
    width: taps, spaced by `dilation`; they span at least `stride` samples.
    stride: input positions for each output one.
    dilation: spacing of taps.
    use_bias: whether a bias is added.
  """

  features: int
  width: int
  stride: int = 1
  dilation: int = 1
  use_bias: bool = True

  @property
  def block_size(self) -> int:
    return self.stride

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.stride)

  @property
  def receptive_field(self) -> int:
    return (self.width - 1) * self.dilation + 1

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    past = self.receptive_field - self.stride
    if past < 0:
      raise ValueError(
          f'taps span {self.receptive_field} < stride {self.stride} samples'
      )
    return jnp.zeros((batch, past, *spec.shape), spec.dtype)

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    shape = (self.width, x.shape[-1], self.features)
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2),
        shape,
        (None, 'channels_in', 'channels_out'),
    )
    x = jnp.concatenate([state, x], axis=1)
    y = ops.conv(x, kernel, self.stride, dilation=self.dilation)
    if self.use_bias:
      y = y + bias(self, self.features, y.dtype)
    mask = block_mask(mask, self.stride)
    return y, mask, x[:, x.shape[1] - state.shape[1] :]


class CausalDepthwiseConv(base.Steppable):
  """One causal filter for each channel, stride 1.

  Attributes:
    width: taps.
    dilation: spacing of taps.
  """

  width: int
  dilation: int = 1

  @property
  def receptive_field(self) -> int:
    return (self.width - 1) * self.dilation + 1

  @nn.nowrap
  def initial_state(self, batch, spec):
    return jnp.zeros((batch, self.receptive_field - 1, *spec.shape), spec.dtype)

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    channels = x.shape[-1]
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.lecun_normal(in_axis=0, out_axis=()),
        (self.width, channels),
        (None, 'channels_out'),
    )
    x = jnp.concatenate([state, x], axis=1)
    y = ops.depthwise_conv(x, kernel, dilation=self.dilation)
    y = y + bias(self, channels, y.dtype)
    return y, mask, x[:, x.shape[1] - state.shape[1] :]


class CausalConvTranspose(base.Steppable):
  """Upsampling by `stride`; what overlaps the next block is carried over.

  Attributes:
    features: output channels.
    width: taps >= stride; width == stride means no overlap.
    stride: output positions for each input one.
  """

  features: int
  width: int
  stride: int

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.stride)

  @property
  def receptive_field(self) -> int:
    return -(-self.width // self.stride)

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return jnp.zeros(
        (batch, self.width - self.stride, self.features), spec.dtype
    )

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    shape = (self.width, x.shape[-1], self.features)
    kernel = ops.weight(
        self,
        'kernel',
        # Each output sees width / stride of the taps.
        nn.initializers.variance_scaling(
            self.stride, 'fan_in', 'normal', in_axis=(0, 1), out_axis=2
        ),
        shape,
        (None, 'channels_in', 'channels_out'),
    )
    y = ops.conv_transpose(x, kernel, self.stride)
    size = x.shape[1] * self.stride
    y = base.pad_time(y, 0, max(size + state.shape[1] - y.shape[1], 0))
    y = y + base.pad_time(state, 0, y.shape[1] - state.shape[1])
    output = y[:, :size] + bias(self, self.features, y.dtype)
    return output, jnp.repeat(mask, self.stride, axis=1), y[:, size:]


class Dense(base.Steppable):
  """A linear map of every position.

  Attributes:
    features: output width.
    init_scale: variance of the output for inputs of variance 1.
    use_bias: whether a bias is added.
  """

  features: int
  init_scale: float = 1.0
  use_bias: bool = True

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.variance_scaling(self.init_scale, 'fan_in', 'normal'),
        (x.shape[-1], self.features),
        ('channels_in', 'channels_out'),
    )
    y = ops.einsum('btd,df->btf', x, kernel)
    if self.use_bias:
      y = y + bias(self, self.features, y.dtype)
    return y, mask, state


class FrameNorm(base.Steppable):
  """Layer normalisation of each position by itself (Ba et al. 2016)."""

  epsilon: float = 1e-5

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    channels = x.shape[-1]
    scale = ops.weight(
        self, 'scale', nn.initializers.ones, (channels,), (None,)
    )
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(variance + self.epsilon)
    y = (y * scale).astype(x.dtype) + bias(self, channels, x.dtype)
    return y, mask, state


def bias(module: nn.Module, features: int, dtype) -> jax.Array:
  """The module's bias vector, zero at the start."""
  value = ops.weight(
      module, 'bias', nn.initializers.zeros, (features,), (None,)
  )
  return value.astype(dtype)


def block_mask(mask: base.Mask, size: int) -> base.Mask:
  """True for blocks of `size` positions of which any is valid."""
  return mask.reshape(mask.shape[0], -1, size).any(axis=-1)
