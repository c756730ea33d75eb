"""Discriminators of complex spectrograms, after EnCodec and after DAC."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.objectives.discriminators import base as discriminators_base
from audiolm_jax.ops import stft


class _Complex(nn.Module):
  """Two-dimensional convolutions over real and imaginary parts."""

  size: int
  hop: int
  filters: int
  widths: tuple[int, int]
  dilations: tuple[int, ...]
  slope: float
  weight_norm: bool

  @nn.compact
  def __call__(self, audio, lengths):
    audio = discriminators_base.pad_to(audio, self.size)
    window = stft.hann(self.size)
    window = window / np.sqrt(np.sum(np.square(window)))
    # Frames that lie within the row only, as theirs.
    frames = jnp.maximum((lengths - self.size) // self.hop + 1, 0)
    x = parts(stft.stft(jnp.moveaxis(audio, 2, 1), self.size, self.hop, window))
    settings = [(self.widths, (1, 1), (1, 1))]
    settings += [(self.widths, (1, 2), (d, 1)) for d in self.dilations]
    settings += [((self.widths[0],) * 2, (1, 1), (1, 1))]
    layers = [
        discriminators_base.Conv(
            self.filters,
            widths,
            strides,
            dilations,
            weight_norm=self.weight_norm,
            name=f'conv_{i}',
        )
        for i, (widths, strides, dilations) in enumerate(settings)
    ]
    head = discriminators_base.Conv(
        1, (self.widths[0],) * 2, weight_norm=self.weight_norm, name='head'
    )
    return discriminators_base.judge(
        discriminators_base.Map.of(x, frames), layers, head, self.slope
    )


class MultiScaleStft(discriminators_base.Discriminator):
  """EnCodec's multi-scale STFT discriminator (Defossez et al. 2022, fig. 2).

  Rows shorter than a window have no logit at its scale.

  Attributes:
    sizes: windows, in samples; hops are a quarter.
    filters: channels of every layer.
    widths: taps over frames and bins; odd.
    dilations: over frames, of the layers that halve the bins.
    slope: of the leaky ReLU.
    weight_norm: whether kernels are normalised.
  """

  sizes: Annotated[tuple[int, ...], config.Range(min=16)] = (
      2048,
      1024,
      512,
      256,
      128,
  )
  filters: config.Positive = 32
  widths: config.Sizes = (3, 9)
  dilations: config.Sizes = (1, 2, 4)
  slope: config.Share = 0.2
  weight_norm: bool = True

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[discriminators_base.Verdict, ...]:
    audio = discriminators_base.zero_past(audio, lengths)
    return tuple(
        _Complex(
            size,
            size // 4,
            self.filters,
            self.widths,
            self.dilations,
            self.slope,
            self.weight_norm,
            name=f'size_{size}',
        )(audio, lengths)
        for size in self.sizes
    )


class _Bands(nn.Module):
  """A stack for each band of bins, a common head over all of them."""

  size: int
  bands: tuple[float, ...]
  filters: int
  layers: int
  slope: float
  weight_norm: bool

  @nn.compact
  def __call__(self, audio, lengths):
    hop = self.size // 4
    frames = -(-lengths // hop)
    count = -(-audio.shape[1] // hop)
    # Frame n is centred on the middle of the n-th hop.
    before = (self.size - hop) // 2
    total = (count - 1) * hop + self.size
    audio = jnp.moveaxis(audio, 2, 1)
    audio = jnp.pad(audio, ((0, 0), (0, 0), (before, 0)))
    audio = discriminators_base.pad_to(audio, total, axis=2)[..., :total]
    x = discriminators_base.Map.of(
        parts(stft.stft(audio, self.size, hop)), frames
    )
    bins = x.values.shape[2]
    edges = [int(edge * bins) for edge in (0.0, *self.bands, 1.0)]
    strides = [(1, 1)] + [(1, 2)] * (self.layers - 2) + [(1, 1)]
    widths = [(3, 9)] * (self.layers - 1) + [(3, 3)]
    features, outputs = [], []
    for band, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
      y = x.replace(values=x.values[:, :, low:high])
      for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        layer = discriminators_base.Conv(
            self.filters,
            width,
            stride,
            weight_norm=self.weight_norm,
            name=f'band_{band}_conv_{i}',
        )
        y = layer(y)
        y = y.replace(values=nn.leaky_relu(y.values, self.slope))
        features.append(y)
      outputs.append(y.values)
    y = discriminators_base.Map(jnp.concatenate(outputs, axis=2), frames)
    head = discriminators_base.Conv(
        1, (3, 3), weight_norm=self.weight_norm, name='head'
    )
    logits = head(y)
    return discriminators_base.Verdict(
        logits.replace(values=logits.values[..., 0]), tuple(features)
    )


class MultiBandStft(discriminators_base.Discriminator):
  """DAC's multi-band multi-resolution one (Kumar et al. 2023, section 3.3).

  Attributes:
    sizes: windows, in samples; hops are a quarter.
    bands: inner edges of the bands, as fractions of the bins.
    filters: channels of every layer.
    layers: of each band; all but the first and last halve the bins.
    slope: of the leaky ReLU.
    weight_norm: whether kernels are normalised.
  """

  sizes: Annotated[tuple[int, ...], config.Range(min=16)] = (2048, 1024, 512)
  bands: Annotated[tuple[float, ...], config.Range(min=0, max=1)] = (
      0.1,
      0.25,
      0.5,
      0.75,
  )
  filters: config.Positive = 32
  layers: Annotated[int, config.Range(min=2)] = 5
  slope: config.Share = 0.1
  weight_norm: bool = True

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[discriminators_base.Verdict, ...]:
    audio = discriminators_base.zero_past(audio, lengths)
    return tuple(
        _Bands(
            size,
            self.bands,
            self.filters,
            self.layers,
            self.slope,
            self.weight_norm,
            name=f'size_{size}',
        )(audio, lengths)
        for size in self.sizes
    )


def parts(spectra: Array) -> Float[Array, 'B N W D']:
  """Spectra [B, C, N, W] -> all real parts, then all imaginary ones."""
  spectra = jnp.moveaxis(spectra, 1, -1)
  return jnp.concatenate([spectra.real, spectra.imag], axis=-1)
