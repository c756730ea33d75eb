"""Mel filter banks, in the two conventions that codecs use.

'htk': the HTK scale (O'Shaughnessy 1987), triangles of height 1; torchaudio's
default, EnCodec's. 'slaney': Slaney's scale (Auditory Toolbox 1998), linear
below 1 kHz, triangles of equal area; librosa's default, DAC's.
"""

import functools
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

Convention = Literal['htk', 'slaney']

# Slaney's scale: 200 / 3 Hz a mel up to 1 kHz, then 27 mels a factor of 6.4.
_LINEAR = 200.0 / 3
_CORNER = 1000.0
_STEP = np.log(6.4) / 27


def hertz_to_mel(hertz, convention: Convention = 'htk'):
  """Frequencies in Hz on a mel scale."""
  hertz = np.asarray(hertz, np.float64)
  if convention == 'htk':
    return 2595.0 * np.log10(1.0 + hertz / 700.0)
  above = np.log(np.maximum(hertz, _CORNER) / _CORNER) / _STEP
  return np.minimum(hertz, _CORNER) / _LINEAR + above


def mel_to_hertz(mel, convention: Convention = 'htk'):
  """Inverse of `hertz_to_mel`."""
  mel = np.asarray(mel, np.float64)
  if convention == 'htk':
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
  corner = _CORNER / _LINEAR
  above = np.exp(_STEP * np.maximum(mel - corner, 0.0))
  return np.minimum(mel, corner) * _LINEAR * above


@functools.lru_cache
def mel_filters(
    sample_rate: int,
    size: int,
    mels: int,
    low: float = 0.0,
    high: float | None = None,
    convention: Convention = 'htk',
) -> np.ndarray:
  """Triangular filters [size / 2 + 1, mels], float32.

  HTK filters so narrow that no bin falls into them (many mels on a short
  window) are linear interpolations between the two bins around their centre
  instead of empty. Slaney's are left empty, as librosa leaves them.

  Args:
    sample_rate: in Hz.
    size: FFT size.
    mels: number of filters.
    low: lower edge of the first one, in Hz.
    high: upper edge of the last one, in Hz; default half the sample rate.
    convention: scale and height: 'htk' with height 1, 'slaney' with area 1 (in
      Hz).
  """
  high = sample_rate / 2 if high is None else high
  ends = hertz_to_mel([low, high], convention)
  edges = mel_to_hertz(np.linspace(*ends, mels + 2), convention)
  bins = np.arange(size // 2 + 1) * sample_rate / size
  left, centre, right = edges[:-2], edges[1:-1], edges[2:]
  spacing = sample_rate / size
  rising = (bins[:, None] - left) / np.maximum(centre - left, 1e-9)
  falling = (right - bins[:, None]) / np.maximum(right - centre, 1e-9)
  filters = np.maximum(0.0, np.minimum(rising, falling))
  if convention == 'slaney':
    filters = filters * (2.0 / (right - left))
  else:
    hat = np.maximum(0.0, 1.0 - np.abs(bins[:, None] - centre) / spacing)
    filters = np.where(filters.sum(axis=0) > 0, filters, hat)
  return filters.astype(np.float32)


def mel_spectrogram(
    magnitudes: Float[Array, '*batch N bins'],
    sample_rate: int,
    mels: int,
    low: float = 0.0,
    high: float | None = None,
    convention: Convention = 'htk',
) -> Float[Array, '*batch N mels']:
  """Mel bands of magnitude (or power) spectra, [..., size / 2 + 1] bins."""
  size = 2 * (magnitudes.shape[-1] - 1)
  filters = mel_filters(sample_rate, size, mels, low, high, convention)
  return jnp.einsum('...nb,bm->...nm', magnitudes, filters)
