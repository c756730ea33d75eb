"""f0 and voicing of recordings, and how far two tracks of them differ.

The tracker is YIN (de Cheveigne & Kawahara 2002), steps 1 to 5, in NumPy on the
host. Errors are those of the literature on pitch trackers.
"""

from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from scipy import signal

HOP = 0.01  # Seconds from a frame to the next.
_LOWEST, _HIGHEST = 60.0, 500.0  # Hz
_WINDOW = 0.025  # Seconds that are compared with themselves, later.
_TROUGH = 0.1  # Of the normalised difference: deep enough for a period.
_VOICED = 0.25  # Likewise, at most, where there is voice.
_CUTOFF = 1000.0  # Hz: frication above it hides the voice of z.
_QUIET = 40.0  # dB below the loudest frame: not voiced.
_GROSS = 0.2  # Of the reference's f0.


def track(audio: Float[np.ndarray, 'T'], rate: int) -> Float[np.ndarray, 'F']:
  """Hz of each frame of 10 ms; 0 where there is no voice.

  Frame i is centred on second (i + .5) HOP; F = T / rate / HOP, rounded up.
  Between 60 and 500 Hz, from what is below 1 kHz. A frame is voiced if its
  normalised difference falls below .25 and its level is within 40 dB of the
  loudest frame's.

  Args:
    audio: samples.
    rate: Hz.
  """
  count = -(-len(audio) // round(HOP * rate)) if len(audio) else 0
  if not count:
    return np.zeros(0)
  window = round(_WINDOW * rate)
  longest = int(rate / _LOWEST) + 2
  span = window + longest
  # What is compared is centred: x(t) with x(t + lag), a frame in the middle.
  centres = ((np.arange(count) + 0.5) * HOP * rate).astype(int)
  padded = np.pad(np.asarray(audio, np.float64), (span // 2, span))
  if rate > 2 * _CUTOFF:
    low = signal.butter(4, _CUTOFF, fs=rate, output='sos')
    padded = signal.sosfiltfilt(low, padded)
  frames = padded[centres[:, None] + np.arange(span)]
  difference = _difference(frames, window, longest)
  lags = np.arange(1, longest + 1)
  total = np.maximum(np.cumsum(difference[:, 1:], axis=1), 1e-12)
  normalised = difference[:, 1:] * lags / total
  period, depth = _first_trough(normalised, int(rate / _HIGHEST))
  power = np.mean(np.square(frames), axis=1)
  loud = power > power.max() * 10 ** (-_QUIET / 10)
  voiced = (depth < _VOICED) & loud
  return np.where(voiced, rate / period, 0.0)


def _difference(frames, window, longest):
  """[F, longest + 1] the sum of (x_t - x_t+lag)^2 over a window."""
  size = 1 << (frames.shape[1] + window - 1).bit_length()
  spectrum = np.fft.rfft(frames, size)
  head = np.fft.rfft(frames[:, :window], size)
  products = np.fft.irfft(np.conj(head) * spectrum, size)[:, : longest + 1]
  sums = np.cumsum(np.square(frames), axis=1)
  sums = np.concatenate([np.zeros((len(frames), 1)), sums], axis=1)
  lags = np.arange(longest + 1)
  energy = sums[:, lags + window] - sums[:, lags]
  return np.maximum(energy[:, :1] + energy - 2 * products, 0)


def _first_trough(normalised, shortest):
  """The period (samples, by a parabola) and its depth: of the first trough.

  That is the lowest point of the first stretch below the threshold, or of all.
  """
  curve = normalised.copy()
  curve[:, : shortest - 1] = np.inf
  curve[:, -1] = np.inf  # A parabola needs both neighbours.
  below = curve < _TROUGH
  start = np.where(below.any(axis=1), below.argmax(axis=1), 0)
  after = np.arange(curve.shape[1]) >= start[:, None]
  # The first stretch ends where the curve rises again.
  rising = np.append(curve[:, 1:] >= curve[:, :-1], curve[:, :1] > 0, axis=1)
  stops = (after & rising & np.isfinite(curve)).argmax(axis=1)
  best = np.where(below.any(axis=1), stops, curve.argmin(axis=1))
  rows = np.arange(len(curve))
  left, middle, right = (
      normalised[rows, np.clip(best + i, 0, curve.shape[1] - 1)]
      for i in (-1, 0, 1)
  )
  bend = left - 2 * middle + right
  shift = np.where(
      bend > 1e-12, (left - right) / 2 / np.maximum(bend, 1e-12), 0
  )
  return best + 1 + np.clip(shift, -0.5, 0.5), middle


class Errors(NamedTuple):
  """Of an f0 track against a reference, as sums and counts.

  Attributes:
    frames: how many there are.
    both: frames that are voiced in both.
    wrong: frames that are voiced in one only.
    gross: of `both`, those whose f0 is more than 20% off.
    cents: over `both`, the sum of absolute differences.
    squared_cents: likewise of squared ones.
  """

  frames: int
  both: int
  wrong: int
  gross: int
  cents: float
  squared_cents: float

  def scores(self) -> dict[str, tuple[float, float]]:
    """(sum, weight) of the usual measures; none of a clip where it has none.

    'vde': voicing decision error, of all frames; 'ffe': f0 frame error, frames
    that are wrong in either way (Chu & Alwan 2009); of frames voiced in both
    'gpe', the gross pitch error, 'f0_cents', the mean absolute difference, and
    'f0_cents_squared', whose root is the RMSE in cents.
    """
    found = {}
    if self.frames:
      frames = float(self.frames)
      found['vde'] = float(self.wrong), frames
      found['ffe'] = float(self.wrong + self.gross), frames
    if self.both:
      both = float(self.both)
      found['gpe'] = float(self.gross), both
      found['f0_cents'] = self.cents, both
      found['f0_cents_squared'] = self.squared_cents, both
    return found


def compare(
    reference: Float[np.ndarray, 'F'], estimate: Float[np.ndarray, 'F']
) -> Errors:
  """Counts of errors of a track; 0 Hz is no voice.

  Args:
    reference: Hz of each frame.
    estimate: likewise, of as many frames.

  Raises:
    ValueError: for tracks of different lengths.
  """
  if reference.shape != estimate.shape or reference.ndim != 1:
    raise ValueError(
        f'need two tracks of one shape [F], got {reference.shape} and'
        f' {estimate.shape}'
    )
  both = (reference > 0) & (estimate > 0)
  ratio = estimate[both] / reference[both]
  difference = 1200 * np.log2(ratio)
  return Errors(
      frames=len(reference),
      both=int(both.sum()),
      wrong=int(np.sum((reference > 0) != (estimate > 0))),
      gross=int(np.sum(np.abs(ratio - 1) > _GROSS)),
      cents=float(np.abs(difference).sum()),
      squared_cents=float(np.square(difference).sum()),
  )
