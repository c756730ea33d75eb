"""Normalisations and per-channel factors."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers


class RmsNorm(streaming_base.Steppable):
  """x / rms(x) * scale at each position by itself (1910.07467, eq. 4), fp32."""

  epsilon: float = 1e-5

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    scale = _factor(self, 'scale', x.shape[-1], 1.0)
    y = x.astype(jnp.float32)
    square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(square + self.epsilon) * scale
    return y.astype(x.dtype), mask, state


class Scale(streaming_base.Steppable):
  """A learned factor for each channel (LayerScale, 2103.17239, eq. 4).

  Attributes:
    initial: where the factors start.
  """

  initial: float = 1.0

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    scale = _factor(self, 'scale', x.shape[-1], self.initial)
    return x * scale.astype(x.dtype), mask, state


class Affine(streaming_base.Steppable):
  """A learned factor and offset for each channel."""

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    channels = x.shape[-1]
    scale = _factor(self, 'scale', channels, 1.0).astype(x.dtype)
    return (
        x * scale + streaming_layers.bias(self, channels, x.dtype),
        mask,
        state,
    )


class TimeGroupNorm(streaming_base.Layer):
  """Group normalisation over time and the channels of a group (1803.08494).

  Mean and variance are those of a row's valid positions, so padding changes
  nothing. EnCodec's 48 kHz model uses one group. The statistics need the whole
  row: no steps, unbounded reach.

  Attributes:
    groups: groups of neighbouring channels; divides them.
    epsilon: added to the variance.
  """

  groups: int = 1
  epsilon: float = 1e-5

  @nn.nowrap
  def reach(self, start, stop):
    return None

  @nn.compact
  def __call__(self, x, mask, context=None):
    del context
    channels = x.shape[-1]
    scale = _factor(self, 'scale', channels, 1.0)
    y = streaming_base.zero_masked(x, mask).astype(jnp.float32)
    y = y.reshape(*x.shape[:2], self.groups, channels // self.groups)
    valid = mask[:, :, None, None]
    # Of an empty row, anything finite.
    count = jnp.maximum(jnp.sum(mask, axis=1), 1) * y.shape[-1]
    count = count[:, None, None, None]
    mean = jnp.sum(y, axis=(1, 3), keepdims=True) / count
    y = jnp.where(valid, y - mean, 0)
    variance = jnp.sum(jnp.square(y), axis=(1, 3), keepdims=True) / count
    y = (y * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
    y = (y * scale).astype(x.dtype) + streaming_layers.bias(
        self, channels, x.dtype
    )
    return y, mask


def _factor(module, name, channels, initial):
  """A vector of factors, fp32."""
  init = nn.initializers.constant(initial)
  return ops.materialize(ops.weight(module, name, init, (channels,), (None,)))
