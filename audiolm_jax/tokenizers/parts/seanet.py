"""SEANet: the convolutional encoder and decoder of EnCodec, Mimi and others.

Tagliasacchi et al. 2020 (2009.02095); EnCodec: Defossez et al. 2022
(2210.13438), section 3.1. The variants differ in their options only: EnCodec
pads by reflection and has a convolution around its residual blocks, audiocraft
pads with zeros and has none, Mimi has no LSTM but a transformer and a further
stride behind, SpeechTokenizer reads its LSTM both ways, EnCodec at 48 kHz looks
ahead and normalises over time.

The layers stand in the order of the original lists (activations included), so
that `interop` names weights by position.
"""

import dataclasses
import functools
import math
from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.streaming import activations
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.streaming import norms
from audiolm_jax.tokenizers.parts import base as parts_base


@dataclasses.dataclass(frozen=True)
class _Seanet(parts_base.Part):
  """What encoder and decoder share.

  Attributes:
    channels: of the audio.
    filters: channels at the audio's rate; they double with every stride.
    dimension: of the latents.
    ratios: strides, in the *decoder's* order, as everybody writes them.
    kernel: taps of the first convolution.
    last_kernel: taps of the last one.
    residual_kernel: taps of a residual block's first convolution.
    residual_layers: residual blocks at each rate.
    dilation_base: block j has dilation dilation_base**j.
    compress: channels of a residual block over those inside it.
    conv_shortcut: whether a 1x1 convolution goes around a residual block.
    causal: whether convolutions look back only.
    padding: around the audio; reflection does not stream.
    norm: weight norm, none, or normalisation over channels and time.
    activation: snake is learned, a frequency for each channel.
    lstm_layers: 0 for none.
    transformer: behind the encoder's convolutions, before the decoder's.
    resample: a further stride behind the transformer (before the decoder's).
  """

  channels: config.Positive = 1
  filters: config.Positive = 32
  dimension: config.Positive = 128
  ratios: Annotated[tuple[int, ...], config.Range(min=2)] = (8, 5, 4, 2)
  kernel: config.Positive = 7
  last_kernel: config.Positive = 7
  residual_kernel: config.Positive = 3
  residual_layers: config.Count = 1
  dilation_base: config.Positive = 2
  compress: config.Positive = 2
  conv_shortcut: bool = False
  causal: bool = True
  padding: Literal['zeros', 'reflect'] = 'zeros'
  norm: Literal['none', 'weight', 'time_group'] = 'none'
  activation: Literal['elu', 'snake'] = 'elu'
  lstm_layers: config.Count = 2
  transformer: transformer_lib.Transformer | None = None
  resample: config.Positive = 1

  @property
  def hop(self) -> int:
    return math.prod(self.ratios) * self.resample

  @property
  def architecture(self) -> str:
    if self.transformer is not None:
      return 'CNN+T'
    return 'CNN+RNN' if self.lstm_layers else 'CNN'

  def _conv(self, features, width, stride=1, dilation=1):
    total = (width - 1) * dilation + 1 - stride
    layer = streaming.Conv(
        features,
        width,
        stride,
        dilation,
        lookahead=0 if self.causal else total // 2,
        padding=self.padding,
        weight_norm=self.norm == 'weight',
    )
    if self.norm == 'time_group':
      return streaming.Serial((layer, norms.TimeGroupNorm()))
    return layer

  def _activation(self):
    if self.activation == 'snake':
      return streaming.Snake()
    return streaming.Map(activations.elu)

  def _residual(self, features, index):
    hidden = features // self.compress
    dilation = self.dilation_base**index
    body = streaming.Serial(
        (
            self._activation(),
            self._conv(hidden, self.residual_kernel, dilation=dilation),
            self._activation(),
            self._conv(features, 1),
        )
    )
    shortcut = self._conv(features, 1) if self.conv_shortcut else None
    return streaming.Residual(body, shortcut)

  def _residuals(self, features):
    return [self._residual(features, i) for i in range(self.residual_layers)]

  def _transformers(self):
    # A copy of the config's module: a Linen module has one parent.
    return [] if self.transformer is None else [self.transformer.clone()]


@dataclasses.dataclass(frozen=True)
class SeanetEncoder(_Seanet):
  """Audio [B, T, C] -> latents [B, T / hop, dimension].

  Attributes:
    bidirectional: whether the LSTM reads both ways (SpeechTokenizer).
  """

  bidirectional: bool = False

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    features = self.filters
    layers = [self._conv(features, self.kernel)]
    for ratio in reversed(self.ratios):
      layers += self._residuals(features)
      features *= 2
      layers.append(self._activation())
      layers.append(self._conv(features, 2 * ratio, ratio))
    if self.lstm_layers:
      layers.append(streaming.Lstm(self.lstm_layers, self.bidirectional))
    layers.append(self._activation())
    layers.append(self._conv(self.dimension, self.last_kernel))
    whole = [streaming.Serial(tuple(layers)), *self._transformers()]
    if self.resample > 1:
      whole.append(
          streaming.Conv(
              self.dimension,
              2 * self.resample,
              self.resample,
              use_bias=False,
              padding='replicate',
          )
      )
    return streaming.Serial(tuple(whole))


@dataclasses.dataclass(frozen=True)
class SeanetDecoder(_Seanet):
  """Latents [B, F, dimension] -> audio [B, F hop, C]."""

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    features = self.filters * 2 ** len(self.ratios)
    layers = [self._conv(features, self.kernel)]
    if self.lstm_layers:
      layers.append(streaming.Lstm(self.lstm_layers))
    for ratio in self.ratios:
      features //= 2
      layers.append(self._activation())
      layers.append(self._conv_transpose(features, 2 * ratio, ratio))
      layers += self._residuals(features)
    layers.append(self._activation())
    layers.append(self._conv(self.channels, self.last_kernel))
    whole = [*self._transformers(), streaming.Serial(tuple(layers))]
    if self.resample > 1:
      upsample = streaming.ConvTranspose(
          self.dimension,
          2 * self.resample,
          self.resample,
          depthwise=True,
          use_bias=False,
      )
      whole.insert(0, upsample)
    return streaming.Serial(tuple(whole))

  def _conv_transpose(self, features, width, stride):
    total = width - stride
    trim = 0 if self.causal else total - total // 2
    if self.norm == 'time_group':
      return NormedConvTranspose(
          features,
          width,
          stride,
          trim=trim,
          norm=norms.TimeGroupNorm(),
      )
    return streaming.ConvTranspose(
        features, width, stride, trim=trim, weight_norm=self.norm == 'weight'
    )


class NormedConvTranspose(streaming.ConvTranspose):
  """Upsampling with a norm over time that also sees what is cut afterwards.

  Attributes:
    norm: over [B, T, C] with its mask.
  """

  norm: streaming.Layer | None = None

  @property
  def steppable(self) -> bool:
    return False

  @nn.nowrap
  def reach(self, start, stop):
    return None

  def __call__(self, x, mask, context=None):
    y, shift = self._spread(streaming.zero_masked(x, mask))
    count = mask.sum(axis=1)
    ends = jnp.where(count > 0, (count - 1) * self.stride + self.width, 0)
    y, _ = self.norm(y + shift, streaming.length_mask(ends, y.shape[1]))
    size = x.shape[1] * self.stride
    y = streaming.pad_time(y, 0, max(size + self.trim - y.shape[1], 0))
    mask = jnp.repeat(mask, self.stride, axis=1)
    return y[:, self.trim : self.trim + size], mask
