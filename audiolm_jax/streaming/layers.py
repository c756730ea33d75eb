"""Streaming layers with parameters: convolutions, projections, norms."""

from fractions import Fraction
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base


class Conv(streaming_base.Steppable):
  """Convolution: output n stands for the block of inputs [n, n + 1) stride.

  Outputs are ceil(T / stride): what is missing to a whole block is padded. With
  `lookahead` 0 the window ends with its block (a causal convolution), and with
  zeros or replication around it steps.

  Attributes:
    features: output channels.
    width: taps, spaced by `dilation`; they span at least `stride` samples.
    stride: input positions for each output one.
    dilation: spacing of taps.
    groups: groups of channels; as many as channels is a depthwise convolution.
    use_bias: whether a bias is added.
    lookahead: inputs past its block that an output sees.
    padding: what stands around a row: zeros, its first and last value, or its
      mirror image. EnCodec's rule for rows shorter than the padding is kept:
      they are first extended by zeros.
    weight_norm: kernel = gain v / |v| for each output channel.
    init_scale: variance of the output for inputs of variance 1.
  """

  features: int
  width: int
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  use_bias: bool = True
  lookahead: int = 0
  padding: Literal['zeros', 'replicate', 'reflect'] = 'zeros'
  weight_norm: bool = False
  init_scale: float = 1.0

  @property
  def block_size(self) -> int:
    return self.stride

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.stride)

  @property
  def steppable(self) -> bool:
    return not self.lookahead and self.padding != 'reflect'

  @property
  def min_step(self) -> int | None:
    if self.padding != 'reflect':
      return super().min_step
    # A mirrored end lies in what is kept of the past.
    if self.lookahead or self._before < self.stride - 1:
      return None
    return (self._before // self.stride + 1) * self.stride

  @property
  def receptive_field(self) -> int:
    return (self.width - 1) * self.dilation + 1

  @nn.nowrap
  def reach(self, start, stop):
    first = start * self.stride - self._before
    return first, (stop - 1) * self.stride + self.stride + self.lookahead

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @property
  def _before(self) -> int:
    """Positions before its block that an output sees."""
    before = self.receptive_field - self.stride - self.lookahead
    if before < 0:
      raise ValueError(
          f'taps span {self.receptive_field} samples, less than stride'
          f' {self.stride} and lookahead {self.lookahead}'
      )
    return before

  @nn.nowrap
  def initial_state(self, batch, spec):
    past = jnp.zeros((batch, self._before, *spec.shape), spec.dtype)
    if self.padding == 'zeros':
      return past
    state = {'past': past, 'started': jnp.zeros(batch, bool)}
    if self.padding == 'replicate':
      state['last'] = jnp.zeros((batch, *spec.shape), spec.dtype)
    return state

  def process(self, x, mask, state, context):
    del context
    if self.padding == 'replicate':
      x, state, rest = _replicate(x, mask, state)
    elif self.padding == 'reflect':
      x, state, rest = _reflect(x, mask, state, self.stride)
    else:
      rest = None
    size = state.shape[1]
    x = jnp.concatenate([state, x], axis=1)
    past = x[:, x.shape[1] - size :]
    state = past if rest is None else {'past': past, **rest}
    return self._convolve(x), block_mask(mask, self.stride), state

  def __call__(self, x, mask, context=None):
    if not x.shape[1]:
      # What has no edges cannot be extended: a masked block instead.
      x, mask = (streaming_base.pad_time(a, 0, self.stride) for a in (x, mask))
      y, mask = self(x, mask, context)
      return y[:, :0], mask[:, :0]
    if self.steppable:
      return super().__call__(x, mask, context)
    x = streaming_base.zero_masked(x, mask)
    missing = -x.shape[1] % self.stride
    before, after = self._before, missing + self.lookahead
    if self.padding == 'zeros':
      x = streaming_base.pad_time(x, before, after)
    elif self.padding == 'replicate':
      x = _replicate_edges(x, mask, before, after)
    else:
      x = _reflect_edges(x, mask, before, after, self.stride, self.lookahead)
    mask = block_mask(streaming_base.pad_time(mask, 0, missing), self.stride)
    return self._convolve(x), mask

  @nn.compact
  def _convolve(self, x):
    """Of what is padded already."""
    channels = x.shape[-1]
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.variance_scaling(
            self.init_scale,
            'fan_in',
            'truncated_normal',
            in_axis=(0, 1),
            out_axis=2,
        ),
        (self.width, channels // self.groups, self.features),
        (None, 'channels_in', 'channels_out'),
    )
    if self.weight_norm:
      kernel = _normed(self, kernel, axis=2)
    depthwise = self.groups == channels == self.features
    if depthwise and self.stride == 1 and channels > 1:
      kernel = ops.materialize(kernel)[:, 0]
      y = ops.depthwise_conv(x, kernel, dilation=self.dilation)
    else:
      y = ops.conv(
          x, kernel, self.stride, dilation=self.dilation, groups=self.groups
      )
    return y + bias(self, self.features, y.dtype) if self.use_bias else y


class ConvTranspose(streaming_base.Steppable):
  """Upsampling by `stride`; what overlaps the next block is carried over.

  Outputs are T stride: of the (T - 1) stride + width that the sum has, `trim`
  are cut at the start and the others at the end. Without a trim it is causal
  and steps.

  Attributes:
    features: output channels.
    width: taps >= stride; width == stride means no overlap.
    stride: output positions for each input one.
    depthwise: one filter for each channel.
    use_bias: whether a bias is added.
    trim: outputs cut at the start, at most width - stride.
    drop: outputs at the end of each row that are masked, as if they were cut
      too: DAC's odd strides lose one (for compatibility only).
    weight_norm: kernel = gain v / |v| for each *input* channel, as in torch.
  """

  features: int
  width: int
  stride: int
  depthwise: bool = False
  use_bias: bool = True
  trim: int = 0
  drop: int = 0
  weight_norm: bool = False

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.stride)

  @property
  def steppable(self) -> bool:
    return not self.trim and not self.drop

  @property
  def receptive_field(self) -> int:
    return -(-self.width // self.stride)

  @nn.nowrap
  def reach(self, start, stop):
    first = -((self.width - 1 - start - self.trim) // self.stride)
    return first, (stop - 1 + self.trim) // self.stride + 1

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return jnp.zeros(
        (batch, self.width - self.stride, self.features), spec.dtype
    )

  def process(self, x, mask, state, context):
    del context
    y, shift = self._spread(x)
    size = x.shape[1] * self.stride
    y = streaming_base.pad_time(
        y, 0, max(size + state.shape[1] - y.shape[1], 0)
    )
    y = y + streaming_base.pad_time(state, 0, y.shape[1] - state.shape[1])
    mask = jnp.repeat(mask, self.stride, axis=1)
    return y[:, :size] + shift, mask, y[:, size:]

  def __call__(self, x, mask, context=None):
    if self.steppable:
      return super().__call__(x, mask, context)
    size = x.shape[1] * self.stride
    y, shift = self._spread(streaming_base.zero_masked(x, mask))
    y = streaming_base.pad_time(y, 0, max(size + self.trim - y.shape[1], 0))
    y = y[:, self.trim : self.trim + size] + shift
    mask = jnp.repeat(mask, self.stride, axis=1)
    # A row loses its last ones: those whose `drop`th follower is masked.
    kept = streaming_base.pad_time(mask[:, self.drop :], 0, self.drop)
    return y, kept

  @nn.compact
  def _spread(self, x):
    """(All that the inputs add to, the bias)."""
    channels = x.shape[-1]
    shape = (self.width, 1 if self.depthwise else channels, self.features)
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
    if self.weight_norm:
      # A depthwise kernel has its input channels on the last axis.
      kernel = _normed(self, kernel, axis=2 if self.depthwise else 1)
    shift = 0.0
    if self.use_bias:
      shift = bias(self, self.features, x.dtype)
    if self.depthwise:
      kernel = ops.materialize(kernel)[:, 0]
      return ops.depthwise_conv_transpose(x, kernel, self.stride), shift
    return ops.conv_transpose(x, kernel, self.stride), shift


class Dense(streaming_base.Steppable):
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
    y = ops.linear(
        self,
        'kernel',
        x,
        self.features,
        ('channels_in', 'channels_out'),
        self.use_bias,
        nn.initializers.variance_scaling(self.init_scale, 'fan_in', 'normal'),
    )
    return sharding.constrain(y, ('batch',)), mask, state


class FrameNorm(streaming_base.Steppable):
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


def block_mask(mask: streaming_base.Mask, size: int) -> streaming_base.Mask:
  """True for blocks of `size` positions of which any is valid."""
  return mask.reshape(mask.shape[0], -1, size).any(axis=-1)


def _normed(module, kernel, axis):
  """gain v / |v| over all axes but one; the gain starts as |v|."""
  v = ops.materialize(kernel)
  gain = ops.weight(
      module,
      'gain',
      lambda rng, shape, dtype: ops.axis_norms(v, axis).astype(dtype),
      (v.shape[axis],),
      (None,),
  )
  return ops.weight_norm(v, gain, axis)


def _replicate(x, mask, state):
  """For a step: (x with its last value where masked, past, rest of state)."""
  starts = mask[:, 0] & ~state['started']
  past = jnp.where(_as(starts, x), x[:, :1], state['past'])
  count = mask.sum(axis=1)
  newest = jnp.take_along_axis(x, _as(jnp.maximum(count - 1, 0), x), axis=1)
  last = jnp.where(_as(count > 0, newest)[:, 0], newest[:, 0], state['last'])
  x = jnp.where(_as(mask, x), x, last[:, None])
  return x, past, {'started': state['started'] | (count > 0), 'last': last}


def _replicate_edges(x, mask, before, after):
  """x with its first and last values around each row."""
  count = mask.sum(axis=1)
  last = jnp.take_along_axis(x, _as(jnp.maximum(count - 1, 0), x), axis=1)
  x = jnp.where(_as(mask, x), x, last)
  first = jnp.broadcast_to(x[:, :1], (x.shape[0], before, *x.shape[2:]))
  rest = jnp.broadcast_to(last, (x.shape[0], after, *x.shape[2:]))
  return jnp.concatenate([first, x, rest], axis=1)


def _reflect(x, mask, state, stride):
  """For a step: (x with its mirrored end, past, rest of state)."""
  past, before = state['past'], state['past'].shape[1]
  if x.shape[1] <= before:
    raise ValueError(
        f'a convolution that reflects takes steps of at least {before + 1}'
        f' positions, got {x.shape[1]}'
    )
  count = mask.sum(axis=1)
  starts = mask[:, 0] & ~state['started']
  # As a whole row has it; one that has begun before is longer than `before`.
  own = -count % stride
  end = jnp.where(starts, jnp.maximum(before, own) + 1, 0)
  end = jnp.maximum(count, end)
  past = jnp.where(_as(starts, x), x[:, before:0:-1], past)
  x = jnp.concatenate([past, x], axis=1)
  x = _mirror_ends(x, count, end, before, stride - 1, starts)
  rest = {'started': state['started'] | (count > 0)}
  return x[:, before:], x[:, :before], rest


def _reflect_edges(x, mask, before, after, stride, lookahead):
  """x with its mirror images around each row.

  Row b of length L is extended to E = max(L, padding + 1) by zeros first, where
  padding is the larger one of its two; position p >= E mirrors 2 (E - 1) - p.
  """
  count = mask.sum(axis=1)
  size = x.shape[1]
  mirror = streaming_base.pad_time(x, 0, max(before + 1 - size, 0))[
      :, 1 : before + 1
  ]
  x = jnp.concatenate(
      [mirror[:, ::-1], streaming_base.pad_time(x, 0, after)], axis=1
  )
  most = stride - 1 + lookahead
  own = -count % stride + lookahead
  end = jnp.maximum(count, jnp.maximum(before, own) + 1)
  return _mirror_ends(x, count, end, before, most, jnp.ones_like(count, bool))


def _mirror_ends(x, count, end, before, most, starts):
  """x with the `most` positions past each row's end from its mirror image.

  Args:
    x: [B, before + T, ...], masked ones zero.
    count: [B] valid positions of T.
    end: [B] where the mirror stands.
    before: positions of the past.
    most: positions to write.
    starts: [B] whether the past is no part of the row.
  """
  if not most:
    return x
  position = count[:, None] + jnp.arange(most)
  source = jnp.where(
      position < end[:, None], position, 2 * (end[:, None] - 1) - position
  )
  first = jnp.where(starts, 0, -before)
  valid = (source >= first[:, None]) & (source < count[:, None])
  place = jnp.clip(source + before, 0, x.shape[1] - 1)
  values = jnp.take_along_axis(x, _as(place, x), axis=1)
  values = jnp.where(_as(valid, x), values, 0)
  rows = jnp.arange(x.shape[0])[:, None]
  # Past the end of the array stands what no valid output sees.
  return x.at[rows, before + position].set(values, mode='drop')


def _as(value, x):
  """`value` [B] or [B, T] with ones for the missing axes of x [B, T, ...]."""
  value = value[:, None] if value.ndim == 1 else value
  return value.reshape(*value.shape, *[1] * (x.ndim - 2))
