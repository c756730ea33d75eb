"""Fixed features of audio that a recogniser reads: spectra as ears have them.

Each is a function of a row's own samples: audio is brought to an RMS of 1
first, and each band to mean 0 and deviation 1 over the row's frames, so that
neither level nor a fixed filter on the way matters. To add one: a dataclass
with `size`, `hop` and `bands` that derives from `FrontEnd`, and a line in
FRONT_ENDS.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.ops import gammatone
from audiolm_jax.ops import mel
from audiolm_jax.ops import stft
from audiolm_jax.streaming import base as streaming_base

# Power of a band beside that of audio of RMS 1; below is silence.
_FLOOR = 1e-4
_LEAST_RMS = 1e-5


@dataclasses.dataclass(frozen=True)
class FrontEnd(abc.ABC):
  """What all have in common.

  Attributes:
    size: samples of a window.
    hop: samples from one frame to the next.
    bands: how many numbers a frame has.
  """

  size: config.Positive
  hop: config.Positive
  bands: config.Positive

  @abc.abstractmethod
  def bands_of(
      self, power: Float[Array, 'B F bins'], sample_rate: int
  ) -> Float[Array, 'B F D']:
    """Compressed bands of power spectra, 1 a bin being the power of noise."""

  def num_frames(self, num_samples: Int[Array, '*s']) -> Int[Array, '*s']:
    """Frames of so many samples: every hop that has begun."""
    return -(-num_samples // self.hop)

  def __call__(
      self,
      audio: Float[Array, 'B T 1'],
      num_samples: Int[Array, 'B'],
      sample_rate: int,
  ) -> tuple[Float[Array, 'B F D'], Int[Array, 'B']]:
    """Normalised features and the frames of each row; zero past a row's end.

    Args:
      audio: anything past a row's end.
      num_samples: lengths of the rows.
      sample_rate: in Hz.
    """
    mask = streaming_base.length_mask(num_samples, audio.shape[1])
    x = streaming_base.zero_masked(audio[..., 0].astype(jnp.float32), mask)
    count = jnp.maximum(num_samples, 1)[:, None]
    rms = jnp.sqrt(jnp.sum(jnp.square(x), axis=1, keepdims=True) / count)
    x /= jnp.maximum(rms, _LEAST_RMS)
    frames = int(self.num_frames(np.int64(x.shape[1])))
    before = (self.size - self.hop) // 2
    missing = (frames - 1) * self.hop + self.size - before - x.shape[1]
    x = jnp.pad(x, ((0, 0), (before, max(missing, 0))))
    window = stft.hann(self.size)
    spectra = stft.stft(x, self.size, self.hop, window)[:, :frames]
    # Of noise of RMS 1 this is 1 in every bin.
    power = jnp.square(jnp.abs(spectra)) / np.sum(np.square(window))
    lengths = self.num_frames(num_samples)
    return _normalised(self.bands_of(power, sample_rate), lengths), lengths


def _normalised(x, lengths):
  """Each band with mean 0 and deviation 1 over a row's frames."""
  mask = streaming_base.length_mask(lengths, x.shape[1])
  count = jnp.maximum(lengths, 1)[:, None, None]
  x = streaming_base.zero_masked(x, mask)
  x -= jnp.sum(x, axis=1, keepdims=True) / count
  x = streaming_base.zero_masked(x, mask)
  variance = jnp.sum(jnp.square(x), axis=1, keepdims=True) / count
  # What does not move at all (silence) stays 0.
  return x * jax.lax.rsqrt(variance + 1e-4)


@dataclasses.dataclass(frozen=True)
class LogMel(FrontEnd):
  """Logarithms of mel bands (HTK); at 16 kHz, 25 ms every 10 ms."""

  size: config.Positive = 400
  hop: config.Positive = 160
  bands: config.Positive = 80

  def bands_of(self, power, sample_rate):
    bands = mel.mel_spectrogram(power, sample_rate, self.bands)
    return jnp.log(bands + _FLOOR)


@dataclasses.dataclass(frozen=True)
class Gammatone(FrontEnd):
  """Cube roots of gammatone bands; at 16 kHz, 32 ms every 8 ms.

  Loudness grows with the cube root of power (Stevens 1957).
  """

  size: config.Positive = 512
  hop: config.Positive = 128
  bands: config.Positive = 64

  def bands_of(self, power, sample_rate):
    filters = gammatone.gammatone_filters(sample_rate, self.size, self.bands)
    bands = jnp.einsum('bfn,nd->bfd', power, filters)
    return jnp.cbrt(bands + _FLOOR)


FRONT_ENDS = {'log_mel': LogMel, 'gammatone': Gammatone}
