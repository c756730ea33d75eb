"""What keeps a clip out of a corpus."""

from jaxtyping import Float
import numpy as np

SILENCE_PEAK = 10 ** (-60 / 20)  # No sample above -60 dB of full scale.


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
  return None
