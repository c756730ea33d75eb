"""Encoder and decoder on spectra: fast to train on CPUs, and they stream.

STFT features are stacked to frames and encoded by ConvNeXt blocks (Liu et al.
2022); further blocks decode, and an inverse STFT sounds the predicted spectra
(after Vocos, Siuzdak 2023). All of it at frame rate, where convolutions over
samples cost several times more. Everything is causal; the only delay is what
the overlap of the last windows needs.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers.parts import base as parts_base


@dataclasses.dataclass(frozen=True)
class SpectralEncoder(parts_base.Part):
  """Mono audio [B, T, 1] -> latents [B, T / hop, dimension].

  Attributes:
    hop: samples a frame; a multiple of `window_hop`.
    window: of the STFT, in samples; a multiple of `window_hop`.
    window_hop: samples between windows.
    dimension: of the latents.
    width: channels of the blocks.
    hidden: channels inside a block.
    kernel: taps of a block's depthwise convolution.
    blocks: how many, at frame rate.
  """

  hop: config.Positive = 320
  window: config.Positive = 640
  window_hop: config.Positive = 160
  dimension: config.Positive = 64
  width: config.Positive = 256
  hidden: config.Positive = 768
  kernel: config.Positive = 7
  blocks: config.Count = 3

  channels = 1
  architecture = 'CNN'
  representation = 'time-frequency'

  def __post_init__(self):
    _check_windows(self)

  @functools.cached_property
  def layer(self) -> streaming.Steppable:
    return streaming.Serial(
        (
            streaming.CausalStft(self.window, self.window_hop),
            streaming.Map(spectral_features),
            streaming.FrameStack(self.hop // self.window_hop),
            streaming.Dense(self.width),
            *[convnext_block(self) for _ in range(self.blocks)],
            streaming.FrameNorm(),
            streaming.Dense(self.dimension),
        )
    )


@dataclasses.dataclass(frozen=True)
class SpectralDecoder(parts_base.Part):
  """Latents [B, F, D] of any width -> mono audio [B, F hop, 1].

  Attributes:
    hop: samples a frame; a multiple of `window_hop`.
    window: of the inverse STFT, in samples; a multiple of `window_hop`.
    window_hop: samples between windows.
    latency: samples by which decoded audio lags, at most window - window_hop.
      More lets the decoder see more of what follows a sample.
    width: channels of the blocks.
    hidden: channels inside a block.
    kernel: taps of a block's depthwise convolution.
    blocks: at frame rate.
    window_blocks: at the rate of the windows.
  """

  hop: config.Positive = 320
  window: config.Positive = 640
  window_hop: config.Positive = 160
  latency: config.Count = 480
  width: config.Positive = 256
  hidden: config.Positive = 768
  kernel: config.Positive = 7
  blocks: config.Count = 4
  window_blocks: config.Count = 1

  channels = 1
  dimension = None
  architecture = 'CNN'
  representation = 'time-frequency'

  def __post_init__(self):
    _check_windows(self)
    if self.latency > self.window - self.window_hop:
      raise config.ConfigError(
          f'latency = {self.latency}: at most window - window_hop ='
          f' {self.window - self.window_hop}'
      )

  @functools.cached_property
  def layer(self) -> streaming.Steppable:
    windows = self.hop // self.window_hop
    return streaming.Serial(
        (
            streaming.Dense(self.width),
            *[convnext_block(self) for _ in range(self.blocks)],
            streaming.ConvTranspose(self.width, windows, windows),
            *[convnext_block(self) for _ in range(self.window_blocks)],
            streaming.FrameNorm(),
            streaming.Dense(3 * (self.window // 2 + 1)),
            streaming.Map(spectra_of_features),
            streaming.CausalIstft(self.window, self.window_hop, self.latency),
        )
    )


def convnext_block(sizes) -> streaming.Steppable:
  """A causal ConvNeXt block; relu, whose gradient is cheap on CPUs.

  Args:
    sizes: has `width`, `hidden` and `kernel`.
  """
  return streaming.Residual(
      streaming.Serial(
          (
              parts_base.convnext_depthwise(sizes.width, sizes.kernel),
              streaming.FrameNorm(),
              streaming.Dense(sizes.hidden),
              streaming.Map(nn.relu),
              # Small, so that blocks start near the identity.
              streaming.Dense(sizes.width, init_scale=0.1),
          )
      )
  )


def spectral_features(spectra: Array) -> Float[Array, 'B N D']:
  """Log magnitude, and real and imaginary parts of |S|^0.3 e^(i phase)."""
  power = jnp.square(spectra.real) + jnp.square(spectra.imag) + 1e-8
  log_power = jnp.log(power)
  # As power^-0.35, but CPUs have no fast power.
  compress = jnp.exp(-0.35 * log_power)
  return jnp.concatenate(
      [
          # About zero mean and unit variance on speech.
          (log_power + 6.0) / 6.0,
          spectra.real * compress,
          spectra.imag * compress,
      ],
      axis=-1,
  )


def spectra_of_features(x: Float[Array, 'B N D']) -> Array:
  """Spectra e^m (a + i b) of [m, a, b], each a third of the last axis.

  The exponential gives the range of loudness; a and b give the phase without
  the wrap of an angle, which learns much more slowly.
  """
  log_scale, real, imaginary = jnp.split(x, 3, axis=-1)
  # Louder than any full-scale signal's; keeps exp from overflowing.
  scale = jnp.exp(jnp.minimum(log_scale, 6.0))
  return jax.lax.complex(scale * real, scale * imaginary)


def _check_windows(part):
  if part.hop % part.window_hop or part.window % part.window_hop:
    raise config.ConfigError(
        f'window_hop = {part.window_hop} must divide hop = {part.hop} and'
        f' window = {part.window}'
    )
