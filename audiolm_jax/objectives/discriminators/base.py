"""What a discriminator is, and the masked convolution most are made of."""

import abc
from collections.abc import Sequence

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.ops import sharding


class Map(flax.struct.PyTreeNode):
  """Values along an axis of time of which each row has used a part.

  Attributes:
    values: [B, N, ...], zero where n >= count.
    counts: [B], how many of a row's N positions are its own: as many as the
      row alone, without padding, would have.
  """

  values: Float[Array, 'B N *D']
  counts: Int[Array, 'B']

  @classmethod
  def of(cls, values: Float[Array, 'B N *D'], counts: Int[Array, 'B']) -> 'Map':
    """`values` with zeros past the counts; what stood there (NaN) is gone."""
    mask = streaming.length_mask(counts, values.shape[1])
    mask = mask.reshape(*mask.shape, *([1] * (values.ndim - 2)))
    values = jnp.where(mask, values, 0.0)
    return cls(sharding.constrain(values, ('batch',)), counts)

  def row_means(self) -> Float[Array, 'B']:
    """Mean of each row's own values; 0 for a row that has none."""
    sums = jnp.sum(self.values, axis=tuple(range(1, self.values.ndim)))
    size = 1
    for axis in self.values.shape[2:]:
      size *= axis
    return sums / jnp.maximum(self.counts * size, 1)

  def apply(self, function) -> 'Map':
    """`function` of the values, masked again."""
    return Map.of(function(self.values), self.counts)


class Verdict(flax.struct.PyTreeNode):
  """What one sub-discriminator says of a batch of audio.

  Attributes:
    logits: [B, N, ...]; large means real.
    features: the maps after each nonlinearity, the logits' own left out.
  """

  logits: Map
  features: tuple[Map, ...]


class Discriminator(nn.Module, abc.ABC):
  """Audio [B, T, C] and lengths [B] in samples -> a verdict of each part.

  Rows are independent, padding changes nothing: a row of a padded batch gets
  the verdict that it would get alone.
  """

  @abc.abstractmethod
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[Verdict, ...]:
    """The verdict of each part on a batch of audio."""


class Conv(nn.Module):
  """Convolution over [B, N, C] or [B, N, W, C], 'same' zeros at the edges.

  Each row's edge is where its own values end. N becomes ceil(N / stride).
  Widths are odd; ValueError otherwise.

  Attributes:
    features: output channels.
    widths: taps along N, or N and W.
    strides: along N, or N and W.
    dilations: along N, or N and W.
    groups: of channels, in one dimension only.
    weight_norm: whether the kernel is gain v / |v|, the gain |v| at first.
  """

  features: int
  widths: tuple[int, ...]
  strides: tuple[int, ...] = (1, 1)
  dilations: tuple[int, ...] = (1, 1)
  groups: int = 1
  weight_norm: bool = True

  @nn.compact
  def __call__(self, x: Map) -> Map:
    if not all(width % 2 for width in self.widths):
      raise ValueError(f'widths {self.widths}: expected odd ones')
    inputs, dimensions = x.values.shape[-1], len(self.widths)
    kernel = ops.weight(
        self,
        'kernel',
        # Uniform with variance 1 / (3 fan-in), as PyTorch's default.
        nn.initializers.variance_scaling(
            1 / 3,
            'fan_in',
            'uniform',
            in_axis=tuple(range(dimensions + 1)),
            out_axis=-1,
        ),
        (*self.widths, inputs // self.groups, self.features),
        (*[None] * dimensions, 'channels_in', 'channels_out'),
    )
    if self.weight_norm:
      gain = ops.weight(
          self,
          'gain',
          lambda *_: ops.axis_norms(ops.materialize(kernel)),
          (self.features,),
          (None,),
      )
      kernel = ops.weight_norm(kernel, gain)
    padding = tuple(
        (dilation * (width // 2),) * 2
        for width, dilation in zip(self.widths, self.dilations, strict=False)
    )
    if dimensions == 1:
      y = ops.conv(
          x.values,
          kernel,
          self.strides[0],
          padding[0],
          self.dilations[0],
          self.groups,
      )
    else:
      y = ops.conv2d(x.values, kernel, self.strides, padding, self.dilations)
    bias = ops.weight(
        self, 'bias', nn.initializers.zeros, (self.features,), (None,)
    )
    return Map.of(y + bias, -(-x.counts // self.strides[0]))


def judge(x: Map, layers: Sequence[Conv], head: Conv, slope: float) -> Verdict:
  """Layers with leaky ReLUs, whose outputs are the features, then the head."""
  features = []
  for layer in layers:
    x = layer(x)
    # Zero stays zero, so the mask holds.
    x = x.replace(values=nn.leaky_relu(x.values, slope))
    features.append(x)
  logits = head(x)
  return Verdict(
      logits=logits.replace(values=logits.values[..., 0]),
      features=tuple(features),
  )


def level(
    audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
) -> Float[Array, 'B T C']:
  """Each row and channel without its mean, with a peak of 0.8.

  What DAC's discriminators are given, so that loudness is no clue.
  """
  mask = streaming.length_mask(lengths, audio.shape[1])[..., None]
  audio = zero_past(audio, lengths)
  count = jnp.maximum(lengths, 1)[:, None, None]
  mean = jnp.sum(audio, axis=1, keepdims=True) / count
  audio = jnp.where(mask, audio - mean, 0.0)
  peak = jnp.max(jnp.abs(audio), axis=1, keepdims=True)
  return 0.8 * audio / (peak + 1e-9)


def zero_past(
    audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
) -> Float[Array, 'B T C']:
  """Audio with zeros past each row's length, whatever stood there."""
  mask = streaming.length_mask(lengths, audio.shape[1])
  return jnp.where(mask[..., None], audio, 0.0)


def pad_to(x: jax.Array, size: int, axis: int = 1) -> jax.Array:
  """Zeros at the end of an axis, up to at least `size`."""
  padding = [(0, 0)] * x.ndim
  padding[axis] = (0, max(size - x.shape[axis], 0))
  return jnp.pad(x, padding)
