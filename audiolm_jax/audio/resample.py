"""Sample rates, channels and levels of host audio."""

from jaxtyping import Float
import numpy as np
import soxr

from audiolm_jax.audio import checks

_SILENCE_DB = -80.0


def resample(
    audio: Float[np.ndarray, 'T C'], rate: int, target_rate: int
) -> Float[np.ndarray, 'U C']:
  """Band-limited resampling (soxr, high quality); U = round(T ratio).

  Raises:
    ValueError: for integers.
  """
  audio = checks.floats(audio)
  if rate == target_rate or not len(audio):
    return audio
  return soxr.resample(audio, rate, target_rate)


def remix(
    audio: Float[np.ndarray, 'T C'], channels: int
) -> Float[np.ndarray, 'T D']:
  """`channels` channels: the mean for one, copies of a mono signal for many.

  Raises:
    ValueError: for a change that is neither, as from 6 to 2.
  """
  if audio.shape[1] == channels:
    return audio
  if channels == 1:
    return audio.mean(axis=1, keepdims=True)
  if audio.shape[1] == 1:
    return np.repeat(audio, channels, axis=1)
  raise ValueError(f'No rule to make {channels} of {audio.shape[1]} channels.')


def mono(
    audio: Float[np.ndarray, 'T C'], rate: int, target_rate: int
) -> Float[np.ndarray, 'U']:
  """One channel at another rate; channels are averaged.

  Raises:
    ValueError: for integers.
  """
  return resample(remix(audio, 1), rate, target_rate)[:, 0]


def rms_db(audio: Float[np.ndarray, '...']) -> float:
  """Level in dB of full scale: 20 log10 RMS; -inf for silence."""
  power = (
      float(np.mean(np.square(audio, dtype=np.float64))) if audio.size else 0
  )
  return 10 * np.log10(power) if power > 0 else -np.inf


def gain_to(audio: Float[np.ndarray, '...'], level_db: float) -> float:
  """The factor that brings `audio` to an RMS of `level_db` dB of full scale.

  It is held back so that no sample passes 1 in magnitude, and is 1 for what is
  as good as silent (below -80 dB), where it would only lift the noise.
  """
  level = rms_db(audio)
  if level < _SILENCE_DB:
    return 1.0
  return min(10 ** ((level_db - level) / 20), 1 / float(np.abs(audio).max()))
