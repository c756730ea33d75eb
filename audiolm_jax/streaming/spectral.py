"""Streaming STFT, its inverse, and stacking of frames."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax.ops import stft
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers


class CausalStft(streaming_base.Steppable):
  """Spectra [B, T / hop, bins] of mono x [B, T, 1]; frame n ends at (n+1) hop.

  Attributes:
    size: window and FFT size, a multiple of hop.
    hop: samples for each frame.
  """

  size: int
  hop: int

  @property
  def block_size(self) -> int:
    return self.hop

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.hop)

  @property
  def receptive_field(self) -> int:
    return self.size

  @nn.nowrap
  def output_spec(self, spec):
    del spec
    return jax.ShapeDtypeStruct((self.size // 2 + 1,), jnp.complex64)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return jnp.zeros((batch, self.size - self.hop, *spec.shape), spec.dtype)

  def process(self, x, mask, state, context):
    del context
    x = jnp.concatenate([state, x], axis=1)
    window = stft.hann(self.size, periodic=False)
    if x.shape[1] < self.size:
      y = jnp.zeros((x.shape[0], 0, self.size // 2 + 1), jnp.complex64)
    else:
      y = stft.stft(x[..., 0], self.size, self.hop, window)
    mask = streaming_layers.block_mask(mask, self.hop)
    return y, mask, x[:, x.shape[1] - state.shape[1] :]


class CausalIstft(streaming_base.Steppable):
  """Audio [B, N hop, 1] of spectra [B, N, bins], by overlap-add.

  Frame n sounds from n hop - latency on. The sum is divided by that of the
  squared windows of the *valid* frames, so that the ends are as loud as the
  middle, and `CausalIstft(latency=size - hop)` inverts `CausalStft`.

  Attributes:
    size: window and FFT size, a multiple of hop.
    hop: samples for each frame.
    latency: samples, at most size - hop.
  """

  size: int
  hop: int
  latency: int

  # The least divisor; full overlap has 1.5. Without it, samples that only the
  # edge of one window reaches would be divided by almost nothing.
  FLOOR = 0.1

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.hop)

  @property
  def output_latency(self) -> int:
    return self.latency

  @property
  def receptive_field(self) -> int:
    return self.size // self.hop

  @nn.nowrap
  def output_spec(self, spec):
    del spec
    return jax.ShapeDtypeStruct((1,), jnp.float32)

  @nn.nowrap
  def initial_state(self, batch, spec):
    del spec
    overlap = self.size - self.hop
    return {
        'audio': jnp.zeros((batch, overlap), jnp.float32),
        'weight': jnp.zeros((batch, overlap), jnp.float32),
        'mask': jnp.zeros((batch, self.latency), bool),
    }

  def process(self, x, mask, state, context):
    del context
    window = stft.hann(self.size, periodic=False)
    size = x.shape[1] * self.hop
    frames = stft.istft_frames(x, window)
    squared = mask[..., None] * jnp.square(window)
    audio, audio_rest = self._add(frames, state['audio'], size)
    weight, weight_rest = self._add(squared, state['weight'], size)
    samples = jnp.concatenate(
        [state['mask'], jnp.repeat(mask, self.hop, axis=1)], axis=1
    )
    audio = audio / jnp.maximum(weight, self.FLOOR)
    state = {
        'audio': audio_rest,
        'weight': weight_rest,
        'mask': samples[:, size:],
    }
    return audio[..., None], samples[:, :size], state

  def _add(self, frames, overlap, size):
    """Overlap-adds frames to what is carried: (the finished, the rest)."""
    if not frames.shape[1]:
      return jnp.zeros((frames.shape[0], 0), frames.dtype), overlap
    total = stft.overlap_add(frames, self.hop)
    total = total + streaming_base.pad_time(overlap, 0, size)
    return total[:, :size], total[:, size:]


class FrameStack(streaming_base.Steppable):
  """`count` neighbouring positions [B, T, D] as one [B, T / count, count D]."""

  count: int

  @property
  def block_size(self) -> int:
    return self.count

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.count)

  @property
  def receptive_field(self) -> int:
    return self.count

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct(
        (self.count * spec.shape[0], *spec.shape[1:]), spec.dtype
    )

  def process(self, x, mask, state, context):
    del context
    time = x.shape[1] // self.count
    y = x.reshape(x.shape[0], time, self.count * x.shape[2], *x.shape[3:])
    return y, streaming_layers.block_mask(mask, self.count), state
