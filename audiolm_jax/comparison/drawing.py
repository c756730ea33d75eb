"""Figures of a report as text: spectrogram PNGs, audio, geometry of curves."""

import base64
import io
import math

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


def curves(
    series: dict[str, list[tuple[float, float]]],
    width: int = 640,
    height: int = 300,
) -> dict:
  """Where an SVG line chart has its lines, ticks and grid.

  Args:
    series: name -> points (x, y); points that are not finite are left out.
    width: of the SVG's view box.
    height: likewise.

  Returns:
    `width`, `height`, `box` (left, top, right, bottom), `x_ticks` and `y_ticks`
    as (position, label), and `lines` with `name`, `path`, `points` (position
    and label, for the pointer).
  """
  box = (52, 10, width - 12, height - 26)
  finite = {
      name: [p for p in points if all(map(math.isfinite, p))]
      for name, points in series.items()
  }
  every = [p for points in finite.values() for p in points] or [(0, 0)]
  x_ticks, x_range = _ticks([p[0] for p in every], 6, pad=False)
  y_ticks, y_range = _ticks([p[1] for p in every], 5, pad=True)

  def place(x, y):
    return (
        round(_scale(x, x_range, box[0], box[2]), 1),
        round(_scale(y, y_range, box[3], box[1]), 1),
    )

  lines = []
  for name, points in finite.items():
    at = [place(*p) for p in points]
    lines.append(
        {
            'name': name,
            'path': 'M' + 'L'.join(f'{x} {y}' for x, y in at) if at else '',
            'points': [
                [x, y, f'{px:g}', f'{py:.4g}']
                for (x, y), (px, py) in zip(at, points, strict=True)
            ],
        }
    )
  return {
      'width': width,
      'height': height,
      'box': box,
      'x_ticks': [(place(t, y_range[0])[0], f'{t:g}') for t in x_ticks],
      'y_ticks': [(place(x_range[0], t)[1], f'{t:g}') for t in y_ticks],
      'lines': lines,
  }


def thin(points: list[tuple[float, float]], limit: int = 400):
  """At most `limit` points: means of runs of neighbours."""
  if len(points) <= limit:
    return [tuple(map(float, p)) for p in points]
  parts = np.array_split(np.asarray(points, np.float64), limit)
  return [tuple(part.mean(axis=0).tolist()) for part in parts]


def _uri(kind, data):
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def _scale(value, source, low, high):
  return low + (value - source[0]) / (source[1] - source[0]) * (high - low)


def _ticks(values, count, pad):
  """Round tick values within the range of `values`, and that range."""
  low, high = min(values), max(values)
  if low == high:
    low, high = low - 0.5, high + 0.5
  if pad:
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
  rough = (high - low) / count
  unit = 10 ** math.floor(math.log10(rough))
  step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
  first, last = math.ceil(low / step), math.floor(high / step)
  ticks = [float(f'{i * step:.10g}') for i in range(first, last + 1)]
  return ticks, (low, high)
