"""Spectra of whole rows: as many frames as hops, each centred on its hop.

Vocos calls this "same" padding (Siuzdak 2023, 2306.00814, section 3.3). Frames
look ahead; `streaming.CausalStft` and `CausalIstft` are the ones that step.
"""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from audiolm_jax import streaming
from audiolm_jax.ops import stft
from audiolm_jax.streaming import layers as streaming_layers

# The least sum of squared windows that audio is divided by.
_FLOOR = 1e-11
# Of the logarithm of a magnitude, against overflow: a magnitude of 100.
_LOUDEST = 4.605170185988092


class CentredStft(streaming.Layer):
  """Spectra [B, ceil(T / hop), bins] of mono x [B, T, 1], zeros around a row.

  Attributes:
    size: window and FFT size.
    hop: samples for each frame; size - hop is even.
  """

  size: int
  hop: int

  @property
  def block_size(self) -> int:
    return self.hop

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.hop)

  @nn.nowrap
  def output_spec(self, spec):
    del spec
    return jax.ShapeDtypeStruct((self.size // 2 + 1,), jnp.complex64)

  @nn.nowrap
  def reach(self, start, stop):
    before = (self.size - self.hop) // 2
    first = start * self.hop - before
    return first, (stop - 1) * self.hop - before + self.size

  def __call__(self, x, mask, context=None):
    del context
    missing = -x.shape[1] % self.hop
    before = (self.size - self.hop) // 2
    after = missing + self.size - self.hop - before
    x = streaming.pad_time(streaming.zero_masked(x, mask), before, after)
    mask = streaming_layers.block_mask(
        streaming.pad_time(mask, 0, missing), self.hop
    )
    if not mask.shape[1]:
      bins = self.size // 2 + 1
      return jnp.zeros((x.shape[0], 0, bins), jnp.complex64), mask
    return stft.stft(x[..., 0], self.size, self.hop), mask


class CentredIstft(streaming.Layer):
  """Audio [B, N hop, 1] of spectra [B, N, bins], by overlap-add.

  The sum is divided by that of the squared windows of the valid frames, so a
  row is as loud at its ends as in its middle.

  Attributes:
    size: window and FFT size, a multiple of hop.
    hop: samples for each frame; size - hop is even.
  """

  size: int
  hop: int

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.hop)

  @nn.nowrap
  def output_spec(self, spec):
    del spec
    return jax.ShapeDtypeStruct((1,), jnp.float32)

  @nn.nowrap
  def reach(self, start, stop):
    before = (self.size - self.hop) // 2
    first = (start + before - self.size) // self.hop + 1
    return first, (stop - 1 + before) // self.hop + 1

  def __call__(self, x, mask, context=None):
    del context
    window = stft.hann(self.size)
    frames = stft.istft_frames(streaming.zero_masked(x, mask), window)
    squares = mask[..., None] * jnp.square(window)

    def add(y):
      before = (self.size - self.hop) // 2
      y = stft.overlap_add(y, self.hop)
      return y[:, before : before + x.shape[1] * self.hop]

    audio = add(frames) / jnp.maximum(add(squares), _FLOOR)
    return audio[..., None], jnp.repeat(mask, self.hop, axis=1)


def polar(x: Float[Array, 'B N D']) -> Complex[Array, 'B N bins']:
  """Spectra e^m (cos p + i sin p) of [m, p], each a half of the last axis."""
  log_magnitude, phase = jnp.split(x, 2, axis=-1)
  magnitude = jnp.exp(jnp.minimum(log_magnitude, _LOUDEST))
  return jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
