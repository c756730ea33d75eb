"""Encoder and decoder of ConvNeXt blocks at every rate, in the time domain.

Those of VibeVoice's tokenizers (2508.19205, section 2.1): a transformer's layer
with a depthwise convolution for its attention (Liu et al. 2022, 2201.03545),
and a strided convolution between rates. Nothing looks ahead, so they stream.
"""

import abc
import dataclasses
import functools
import math

import jax

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers.parts import base as parts_base


@dataclasses.dataclass(frozen=True)
class _ConvNext(parts_base.Part, abc.ABC):
  """What encoder and decoder share.

  Attributes:
    channels: of the audio.
    dimension: of the latents.
    filters: channels at the audio's rate; they double with every stride.
    strides: in the order in which audio or latents pass them.
    depths: blocks at each rate, in that order: one more than strides.
    kernel: taps of the convolutions that keep the rate.
    expansion: channels inside a block's perceptron over those of the block.
    norm_epsilon: of every norm (RMS).
    layer_scale: where the factors of what a block adds start.
  """

  channels: config.Positive = 1
  dimension: config.Positive = 64
  filters: config.Positive = 32
  strides: config.Sizes = (2, 2, 4, 5, 5, 8)
  depths: config.Sizes = (3, 3, 3, 3, 3, 3, 8)
  kernel: config.Positive = 7
  expansion: config.Positive = 4
  norm_epsilon: config.NonNegative = 1e-5
  layer_scale: float = 1e-6

  architecture = 'CNN'

  def __post_init__(self):
    if len(self.depths) != len(self.strides) + 1:
      raise config.ConfigError(
          f'depths = {self.depths}: expected one more than the'
          f' {len(self.strides)} strides'
      )

  @property
  def hop(self) -> int:
    return math.prod(self.strides)

  def _stage(self, first, width, depth):
    """A convolution, and the blocks at its rate."""
    blocks = [self._block(width) for _ in range(depth)]
    return streaming.Serial((first, *blocks))

  def _block(self, width):
    mixer = parts_base.convnext_depthwise(width, self.kernel)
    perceptron = (
        streaming.Dense(self.expansion * width),
        streaming.Map(_gelu),
        streaming.Dense(width),
    )
    return streaming.Serial((self._branch(mixer), self._branch(*perceptron)))

  def _branch(self, *layers):
    """x plus layers of its norm, scaled."""
    norm = streaming.RmsNorm(self.norm_epsilon)
    scale = streaming.Scale(self.layer_scale)
    return streaming.Residual(streaming.Serial((norm, *layers, scale)))


@dataclasses.dataclass(frozen=True)
class ConvNextEncoder(_ConvNext):
  """Audio [B, T, C] -> latents [B, T / hop, dimension]."""

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    width = self.filters
    first = streaming.Conv(width, self.kernel)
    stages = [self._stage(first, width, self.depths[0])]
    for stride, depth in zip(self.strides, self.depths[1:], strict=True):
      width *= 2
      down = streaming.Conv(width, 2 * stride, stride)
      stages.append(self._stage(down, width, depth))
    last = streaming.Conv(self.dimension, self.kernel)
    return streaming.Serial((*stages, last))


@dataclasses.dataclass(frozen=True)
class ConvNextDecoder(_ConvNext):
  """Latents [B, F, dimension] -> audio [B, F hop, C]."""

  strides: config.Sizes = (8, 5, 5, 4, 2, 2)
  depths: config.Sizes = (8, 3, 3, 3, 3, 3, 3)

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    width = self.filters * 2 ** len(self.strides)
    first = streaming.Conv(width, self.kernel)
    stages = [self._stage(first, width, self.depths[0])]
    for stride, depth in zip(self.strides, self.depths[1:], strict=True):
      width //= 2
      up = streaming.ConvTranspose(width, 2 * stride, stride)
      stages.append(self._stage(up, width, depth))
    last = streaming.Conv(self.channels, self.kernel)
    return streaming.Serial((*stages, last))


def _gelu(x):
  return jax.nn.gelu(x, approximate=False)
