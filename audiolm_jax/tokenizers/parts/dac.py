"""The convolutional encoder and decoder of DAC and stable-audio's Oobleck.

DAC: Kumar et al. 2023 (2306.06546), section 3.1 and appendix A; Oobleck: Evans
et al. 2024 (2404.10301), section 3.1. They differ in their options only:
Oobleck's activation has a second parameter, its decoder no tanh and no last
bias. SNAC (`parts.snac`) is made of the same units.

The originals look as far ahead as back. With `causal` nothing looks ahead, so
that they stream: our recommended codec in the time domain.
"""

import abc
import dataclasses
import functools
import math
from typing import Literal

import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers.parts import base as parts_base


@dataclasses.dataclass(frozen=True)
class Units(parts_base.Part, abc.ABC):
  """What encoders and decoders made of these units share.

  Attributes:
    channels: of the audio.
    dimension: of the latents.
    widths: channels at each rate, in the order in which audio or latents pass
      them: one more than strides.
    strides: in that order too.
    dilations: of the residual units at each rate.
    kernel: taps of a residual unit's first convolution; odd.
    activation: snake has a frequency for each channel; snake_beta also an
      amplitude, both as logarithms.
    depthwise: residual units filter each channel by itself first.
    causal: whether convolutions look back only.
    weight_norm: whether kernels keep direction and gain apart.
  """

  channels: config.Positive = 1
  dimension: config.Positive = 1024
  widths: config.Sizes = (64, 128, 256, 512, 1024)
  strides: config.Sizes = (2, 4, 8, 8)
  dilations: config.Sizes = (1, 3, 9)
  kernel: config.Positive = 7
  activation: Literal['snake', 'snake_beta'] = 'snake'
  depthwise: bool = False
  causal: bool = False
  weight_norm: bool = True

  architecture = 'CNN'

  def __post_init__(self):
    if len(self.widths) != len(self.strides) + 1:
      raise config.ConfigError(
          f'widths = {self.widths}: expected one more than the'
          f' {len(self.strides)} strides'
      )
    if not self.kernel % 2:
      raise config.ConfigError(f'kernel = {self.kernel} must be odd')

  @property
  def hop(self) -> int:
    return math.prod(self.strides)

  def snake(self) -> streaming.Layer:
    """The activation."""
    beta = self.activation == 'snake_beta'
    return streaming.Snake(separate=beta, log_scale=beta)

  def conv(
      self,
      features: int,
      width: int,
      dilation: int = 1,
      groups: int = 1,
      bias: bool = True,
  ) -> streaming.Layer:
    """A convolution at the same rate."""
    return streaming.Conv(
        features,
        width,
        dilation=dilation,
        groups=groups,
        use_bias=bias,
        lookahead=0 if self.causal else (width - 1) * dilation // 2,
        weight_norm=self.weight_norm,
    )

  def residuals(self, features: int) -> list[streaming.Layer]:
    """The residual units at one rate."""
    groups = features if self.depthwise else 1
    return [
        streaming.Residual(
            streaming.Serial(
                (
                    self.snake(),
                    self.conv(features, self.kernel, dilation, groups),
                    self.snake(),
                    self.conv(features, 1),
                )
            )
        )
        for dilation in self.dilations
    ]

  def down(self, inputs: int, outputs: int, stride: int) -> streaming.Layer:
    """Residual units, then a stride."""
    # The originals pad ceil(stride / 2) on both sides; what an odd stride has
    # too much stands at the end, where it makes no frame.
    conv = streaming.Conv(
        outputs,
        2 * stride,
        stride,
        lookahead=0 if self.causal else stride // 2,
        weight_norm=self.weight_norm,
    )
    return streaming.Serial((*self.residuals(inputs), self.snake(), conv))

  def up(
      self,
      outputs: int,
      stride: int,
      drop: int = 0,
      then: tuple[streaming.Layer, ...] = (),
  ) -> streaming.Layer:
    """An upsampling stride, what follows it, then residual units."""
    transposed = streaming.ConvTranspose(
        outputs,
        2 * stride,
        stride,
        trim=0 if self.causal else -(-stride // 2),
        drop=drop,
        weight_norm=self.weight_norm,
    )
    return streaming.Serial(
        (self.snake(), transposed, *then, *self.residuals(outputs))
    )


@dataclasses.dataclass(frozen=True)
class DacEncoder(Units):
  """Audio [B, T, C] -> latents [B, T / hop, dimension].

  Attributes:
    last_kernel: taps of the last convolution; odd.
  """

  last_kernel: config.Positive = 3

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    steps = zip(self.widths, self.widths[1:], self.strides, strict=False)
    return streaming.Serial(
        (
            self.conv(self.widths[0], 7),
            *[self.down(*step) for step in steps],
            self.snake(),
            self.conv(self.dimension, self.last_kernel),
        )
    )


@dataclasses.dataclass(frozen=True)
class DacDecoder(Units):
  """Latents [B, F, dimension] -> audio [B, F hop, C].

  Attributes:
    tanh: whether audio is squashed into (-1, 1).
    last_bias: whether the last convolution has a bias.
    drop_samples: lose a sample at every odd stride, as DAC does: 8 of each clip
      at 16 and 24 kHz. For comparisons only.
  """

  widths: config.Sizes = (1536, 768, 384, 192, 96)
  strides: config.Sizes = (8, 8, 4, 2)
  tanh: bool = True
  last_bias: bool = True
  drop_samples: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.causal and self.drop_samples:
      raise config.ConfigError('drop_samples is of DAC, which is not causal')

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    layers = [self.conv(self.widths[0], 7)]
    for width, stride in zip(self.widths[1:], self.strides, strict=True):
      layers.append(self.up(width, stride, stride % 2 * self.drop_samples))
    layers += [self.snake(), self.conv(self.channels, 7, bias=self.last_bias)]
    if self.tanh:
      layers.append(streaming.Map(jnp.tanh))
    return streaming.Serial(tuple(layers))
