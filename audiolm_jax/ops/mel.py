"""Mel filter banks on the HTK scale (O'Shaughnessy 1987)."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np


def hertz_to_mel(hertz):
  """The HTK mel scale."""
  return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def mel_to_hertz(mel):
  """Inverse of `hertz_to_mel`."""
  return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


@functools.lru_cache
def mel_filters(
    sample_rate: int,
    size: int,
    mels: int,
    low: float = 0.0,
    high: float | None = None,
) -> np.ndarray:
  """Triangular filters [size / 2 + 1, mels] of height 1, float32.

  Filters so narrow that no bin falls into them (many mels on a short window)
  are linear interpolations between the two bins around their centre instead of
  empty.

  Args:
    sample_rate: in Hz.
    size: FFT size.
    mels: number of filters.
    low: lower edge of the first one, in Hz.
    high: upper edge of the last one, in Hz; default half the sample rate.
  """
  high = sample_rate / 2 if high is None else high
  edges = mel_to_hertz(
      np.linspace(hertz_to_mel(low), hertz_to_mel(high), mels + 2)
  )
  bins = np.arange(size // 2 + 1) * sample_rate / size
  left, centre, right = edges[:-2], edges[1:-1], edges[2:]
  spacing = sample_rate / size
  # At least one bin wide on either side of the centre.
  rising = (bins[:, None] - left) / np.maximum(centre - left, 1e-9)
  falling = (right - bins[:, None]) / np.maximum(right - centre, 1e-9)
  filters = np.maximum(0.0, np.minimum(rising, falling))
  hat = np.maximum(0.0, 1.0 - np.abs(bins[:, None] - centre) / spacing)
  filters = np.where(filters.sum(axis=0) > 0, filters, hat)
  return filters.astype(np.float32)


def mel_spectrogram(
    magnitudes: Float[Array, '*batch N bins'],
    sample_rate: int,
    mels: int,
) -> Float[Array, '*batch N mels']:
  """Mel bands of magnitude (or power) spectra, [..., size / 2 + 1] bins."""
  size = 2 * (magnitudes.shape[-1] - 1)
  filters = mel_filters(sample_rate, size, mels)
  return jnp.einsum('...nb,bm->...nm', magnitudes, filters)
