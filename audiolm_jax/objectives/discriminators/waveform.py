"""Discriminators of the waveform: at several periods, and several scales."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax.objectives.discriminators import base as discriminators_base


class _Period(nn.Module):
  """Samples a period apart, folded to rows [B, N, period, C]."""

  period: int
  channels: tuple[int, ...]
  width: int
  stride: int
  slope: float
  weight_norm: bool

  @nn.compact
  def __call__(self, audio, lengths):
    rows = -(-audio.shape[1] // self.period)
    audio = discriminators_base.pad_to(audio, rows * self.period)
    x = audio.reshape(audio.shape[0], rows, self.period, audio.shape[2])
    # The last layer keeps the resolution.
    strides = [self.stride] * (len(self.channels) - 1) + [1]
    layers = [
        discriminators_base.Conv(
            features,
            (self.width, 1),
            (stride, 1),
            weight_norm=self.weight_norm,
            name=f'conv_{i}',
        )
        for i, (features, stride) in enumerate(
            zip(self.channels, strides, strict=True)
        )
    ]
    head = discriminators_base.Conv(
        1, (3, 1), weight_norm=self.weight_norm, name='head'
    )
    x = discriminators_base.Map.of(x, -(-lengths // self.period))
    return discriminators_base.judge(x, layers, head, self.slope)


class MultiPeriod(discriminators_base.Discriminator):
  """HiFi-GAN's multi-period discriminator (Kong et al. 2020, section 2.3).

  One convolution stack for each period, over the samples that are so far apart.
  An incomplete last row is filled with zeros (theirs mirrors the signal).

  Attributes:
    periods: in samples.
    channels: of the layers.
    width: taps of a layer.
    stride: of all layers but the last.
    slope: of the leaky ReLU.
    weight_norm: whether kernels are normalised.
  """

  periods: config.Sizes = (2, 3, 5, 7, 11)
  channels: config.Sizes = (
      32,
      128,
      512,
      1024,
      1024,
  )
  width: config.Positive = 5
  stride: config.Positive = 3
  slope: config.Share = 0.1
  weight_norm: bool = True

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[discriminators_base.Verdict, ...]:
    audio = discriminators_base.zero_past(audio, lengths)
    return tuple(
        _Period(
            period,
            self.channels,
            self.width,
            self.stride,
            self.slope,
            self.weight_norm,
            name=f'period_{period}',
        )(audio, lengths)
        for period in self.periods
    )


class _Scale(nn.Module):
  """Grouped convolutions with long strides over the samples."""

  channels: tuple[int, ...]
  widths: tuple[int, ...]
  strides: tuple[int, ...]
  groups: tuple[int, ...]
  slope: float
  weight_norm: bool

  @nn.compact
  def __call__(self, x):
    settings = zip(
        self.channels, self.widths, self.strides, self.groups, strict=True
    )
    layers = [
        discriminators_base.Conv(
            features,
            (width,),
            (stride,),
            groups=groups,
            weight_norm=self.weight_norm,
            name=f'conv_{i}',
        )
        for i, (features, width, stride, groups) in enumerate(settings)
    ]
    head = discriminators_base.Conv(
        1, (3,), weight_norm=self.weight_norm, name='head'
    )
    return discriminators_base.judge(x, layers, head, self.slope)


class MultiScale(discriminators_base.Discriminator):
  """HiFi-GAN's multi-scale discriminator (after Kumar et al. 2019, MelGAN).

  The same stack on the signal and on averages of it, each half as fast as the
  one before. All are weight-normalised (theirs spectrally norms the first).

  Attributes:
    scales: how many.
    channels: of the layers.
    widths: taps of the layers.
    strides: of the layers.
    groups: of the layers' channels.
    slope: of the leaky ReLU.
    weight_norm: whether kernels are normalised.
  """

  scales: config.Positive = 3
  channels: config.Sizes = (
      128,
      128,
      256,
      512,
      1024,
      1024,
      1024,
  )
  widths: config.Sizes = (
      15,
      41,
      41,
      41,
      41,
      41,
      5,
  )
  strides: config.Sizes = (
      1,
      2,
      2,
      4,
      4,
      1,
      1,
  )
  groups: config.Sizes = (
      1,
      4,
      16,
      16,
      16,
      16,
      1,
  )
  slope: config.Share = 0.1
  weight_norm: bool = True

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[discriminators_base.Verdict, ...]:
    x = discriminators_base.Map.of(audio, lengths)
    verdicts = []
    for i in range(self.scales):
      x = halved(x) if i else x
      stack = _Scale(
          self.channels,
          self.widths,
          self.strides,
          self.groups,
          self.slope,
          self.weight_norm,
          name=f'scale_{i}',
      )
      verdicts.append(stack(x))
    return tuple(verdicts)


def halved(x: discriminators_base.Map) -> discriminators_base.Map:
  """Averages of 4 values at every second one, 2 zeros at either end."""
  values = x.values
  padded = jnp.pad(values, ((0, 0), (2, 2 + values.shape[1] % 2), (0, 0)))
  pairs = padded.reshape(values.shape[0], -1, 2, values.shape[2]).sum(axis=2)
  averages = (pairs[:, :-1] + pairs[:, 1:]) / 4
  counts = jnp.where(x.counts > 0, x.counts // 2 + 1, 0)
  # An odd size was padded by one more, whose average is nobody's.
  return discriminators_base.Map.of(
      averages[:, : values.shape[1] // 2 + 1], counts
  )
