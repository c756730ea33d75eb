"""Loudness as ITU-R BS.1770-4 has it, and clips made equally loud.

One channel: K-weighting (a high shelf, a high pass), mean squares of 400 ms
blocks every 100 ms, blocks under -70 LUFS left out, then those 10 dB below what
is left. Filters for any sample rate by the bilinear transform, as De Man,
"Evaluation of implementations of the EBU R128 loudness measurement" (2018).
"""

from collections.abc import Mapping
import math

from jaxtyping import Float
import numpy as np
from scipy import signal

TARGET = -23.0  # LUFS, that of EBU R 128.


def loudness(audio: Float[np.ndarray, 'T'], sample_rate: int) -> float:
  """Integrated loudness of one channel in LUFS; -inf of silence.

  Clips under 400 ms are one block.
  """
  weighted = np.asarray(audio, np.float64)
  for b, a in _k_weighting(sample_rate):
    weighted = signal.lfilter(b, a, weighted)
  size, hop = round(0.4 * sample_rate), round(0.1 * sample_rate)
  energy = np.concatenate([[0.0], np.cumsum(weighted**2)])
  starts = np.arange(0, max(len(weighted) - size, 0) + 1, hop)
  ends = np.minimum(starts + size, len(weighted))
  powers = (energy[ends] - energy[starts]) / np.maximum(ends - starts, 1)
  powers = powers[_level(powers) > -70]
  if not powers.size:
    return -math.inf
  kept = powers[_level(powers) > float(_level(powers.mean())) - 10]
  return float(_level(kept.mean()))


def matching_gains(
    clips: Mapping[str, Float[np.ndarray, 'T']], sample_rate: int
) -> dict[str, float]:
  """Gain in dB of each clip that makes all of them equally loud.

  To -23 LUFS, or all of them by the same amount lower where a sample would
  pass full scale; a silent clip stays as it is.

  Args:
    clips: name -> one channel.
    sample_rate: in Hz.
  """
  levels = {name: loudness(audio, sample_rate) for name, audio in clips.items()}
  gains = {n: TARGET - v for n, v in levels.items() if math.isfinite(v)}
  over = max(
      (
          gain + 20 * math.log10(float(np.abs(clips[name]).max()))
          for name, gain in gains.items()
      ),
      default=0.0,
  )
  return {n: gains[n] - max(over, 0.0) if n in gains else 0.0 for n in clips}


def _level(power):
  return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))


def _k_weighting(sample_rate):
  """(b, a) of the high shelf and of the high pass."""
  k = math.tan(math.pi * 1681.974450955533 / sample_rate)
  high = 10 ** (3.999843853973347 / 20)
  middle, q = high**0.4996667741545416, 0.7071752369554196
  scale = 1 + k / q + k * k
  shelf = (
      np.array(
          [
              high + middle * k / q + k * k,
              2 * (k * k - high),
              high - middle * k / q + k * k,
          ]
      )
      / scale
  )
  poles = np.array([scale, 2 * (k * k - 1), 1 - k / q + k * k]) / scale
  k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
  scale = 1 + k / q + k * k
  low = np.array([scale, 2 * (k * k - 1), 1 - k / q + k * k]) / scale
  return [(shelf, poles), (np.array([1.0, -2.0, 1.0]), low)]
