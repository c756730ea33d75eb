"""What keeps samples, rates and clips from being used."""

from typing import Any

from jaxtyping import Float
import numpy as np

SILENCE_PEAK = 10 ** (-60 / 20)  # No sample above -60 dB of full scale.
# What no audio in [-1, 1] reaches, however much it was amplified or overshoots:
# above it are integers that were stored as floats.
LOUDEST = 16.0
# Hz. Below are damaged headers: a second of samples would become minutes.
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
MOST_CHANNELS = 1024  # of libsndfile


def rate(value: Any) -> int:
  """A sample rate in Hz, if it may be one.

  Raises:
    ValueError: if it is not a whole number between 1 kHz and 1 MHz.
  """
  if not _whole(value) or not LOWEST_RATE <= value <= HIGHEST_RATE:
    raise ValueError(
        f'a sample rate of {value} Hz; expected {LOWEST_RATE} to'
        f' {HIGHEST_RATE}'
    )
  return int(value)


def channels(value: Any) -> int:
  """A number of channels, if it may be one.

  Raises:
    ValueError: if it is not a whole number between 1 and 1024.
  """
  if not _whole(value) or not 1 <= value <= MOST_CHANNELS:
    raise ValueError(f'{value} channels; expected 1 to {MOST_CHANNELS}')
  return int(value)


def floats(audio: Any) -> Float[np.ndarray, '...']:
  """Samples on the host, of any shape, as float32.

  Integers are refused: which one stands for full scale can only be guessed.

  Raises:
    ValueError: for what is no array of floats.
  """
  audio = np.asarray(audio)
  if audio.dtype.kind in 'iub':
    raise ValueError(
        f'{audio.dtype} samples; expected floats with full scale at 1'
        ' (`audio.files.to_float` scales 16-bit integers)'
    )
  if audio.dtype.kind in 'cOSUMm':
    raise ValueError(f'{audio.dtype} samples; expected floats')
  return audio.astype(np.float32, copy=False)


def samples(
    audio: Any, loudest: float = float('inf')
) -> Float[np.ndarray, '...']:
  """`floats` that are finite.

  Args:
    audio: floats of any precision, full scale at 1.
    loudest: the largest magnitude that is taken, such as `LOUDEST`.

  Raises:
    ValueError: for other types, and if a sample is not finite or too large;
      it says which.
  """
  audio = floats(audio)
  if within(audio, loudest):
    return audio
  bad = ~np.isfinite(audio)
  if bad.any():
    raise ValueError(
        f'{np.count_nonzero(bad)} of {audio.size} samples are not finite, the'
        f' first at {_place(bad)}'
    )
  loud = np.abs(audio) > loudest
  raise ValueError(
      f'a sample of {audio[loud][0]:g} at {_place(loud)}; full scale is 1.'
      ' Integers must be scaled before they become floats'
  )


def within(audio: Float[np.ndarray, '...'], loudest: float) -> bool:
  """Whether all samples are finite and no larger than that; two passes tell."""
  if not audio.size:
    return True
  low, high = audio.min(), audio.max()
  # NaN is in no order.
  return bool(
      np.isfinite(low)
      and np.isfinite(high)
      and -loudest <= low
      and high <= loudest
  )


def fault(
    audio: Float[np.ndarray, 'T C'], sample_rate: int, min_seconds: float = 0.0
) -> str | None:
  """Why a clip can't be used, or None if it can.

  Args:
    audio: samples in [-1, 1].
    sample_rate: in Hz.
    min_seconds: shortest usable clip.
  """
  if not audio.size:
    return 'empty: no samples'
  if not np.isfinite(audio).all():
    bad = int(np.count_nonzero(~np.isfinite(audio)))
    return f'not finite: {bad} of {audio.size} samples are NaN or infinite'
  seconds = len(audio) / sample_rate
  if seconds < min_seconds:
    return f'too short: {seconds:.3f} s, under {min_seconds:g} s'
  peak = float(np.abs(audio).max())
  if peak < SILENCE_PEAK:
    return f'silent: no sample above {SILENCE_PEAK:g} (peak {peak:.2g})'
  if peak > LOUDEST:
    return f'too loud: a peak of {peak:g}, where full scale is 1'
  return None


def _whole(value) -> bool:
  """Whether it is an integer, which bool is not."""
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _place(marked: np.ndarray) -> tuple[int, ...]:
  """Index of the first that is marked."""
  return tuple(map(int, np.argwhere(marked)[0]))
