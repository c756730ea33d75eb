"""Figures of a report as text: spectrogram PNGs and audio."""

import base64
import io

from jaxtyping import Float
import matplotlib
from matplotlib import image
import numpy as np
import soundfile

from audiolm_jax.ops import mel

# Fixed, so that two spectrograms of one report can be compared by eye.
_DECIBELS = (-80.0, 0.0)


def audio_uri(audio: Float[np.ndarray, 'T'], sample_rate: int) -> str:
  """A data: URI of `audio` as 16-bit FLAC, clipped to [-1, 1]."""
  buffer = io.BytesIO()
  audio = np.clip(np.asarray(audio, np.float32), -1, 1)
  soundfile.write(buffer, audio, sample_rate, format='FLAC', subtype='PCM_16')
  return _uri('audio/flac', buffer.getvalue())


def spectrogram_uri(
    audio: Float[np.ndarray, 'T'],
    sample_rate: int,
    bands: int = 80,
    columns: int = 480,
) -> str:
  """A data: URI of a PNG: log-mel in dB re full scale, low bands at the foot.

  Args:
    audio: one channel; an empty clip gives an empty picture.
    sample_rate: in Hz.
    bands: rows of pixels.
    columns: of pixels, whatever the duration.
  """
  window = round(0.032 * sample_rate)
  padded = np.pad(np.asarray(audio, np.float64), (window // 2, window))
  starts = np.linspace(0, max(len(audio), 1), columns).astype(int)
  frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
  # A full-scale sine has magnitude sum(window) / 2.
  magnitudes = np.abs(np.fft.rfft(frames)) * 2 / np.hanning(window).sum()
  levels = magnitudes @ mel.mel_filters(sample_rate, window, bands)
  levels = 20 * np.log10(np.maximum(levels, 1e-6))
  low, high = _DECIBELS
  shade = np.clip((levels - low) / (high - low), 0, 1).T[::-1]
  buffer = io.BytesIO()
  pixels = matplotlib.colormaps['magma'](shade, bytes=True)[..., :3]
  image.imsave(buffer, np.ascontiguousarray(pixels), format='png')
  return _uri('image/png', buffer.getvalue())


def _uri(kind, data):
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'
