"""Encoder and decoder of ConvNeXt blocks at frame rate, between Fourier transforms.

The decoder is that of Vocos (Siuzdak 2023, 2306.00814, section 3) and, with
attention before its blocks, of WavTokenizer (Ji et al. 2024, 2408.16532,
section 3.3); the encoder its mirror image over log mel bands. Each frame sees as
far ahead as back; with `causal` nothing looks ahead, and both stream.
"""

import abc
import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import mel
from audiolm_jax.tokenizers.parts import base as parts_base
from audiolm_jax.tokenizers.parts import fourier


@dataclasses.dataclass(frozen=True)
class _Vocos(parts_base.Part, abc.ABC):
  """What encoder and decoder share.

  Attributes:
    hop: samples a frame.
    size: of the (inverse) STFT's windows; a multiple of hop, from which it
      differs by an even number.
    dimension: of the latents.
    width: channels of the blocks.
    hidden: channels inside a block.
    kernel: taps of the convolutions; odd.
    blocks: how many.
    norm_epsilon: of every norm.
    causal: whether nothing looks ahead.
  """

  hop: config.Positive = 320
  size: config.Positive = 1280
  dimension: config.Positive = 128
  width: config.Positive = 768
  hidden: config.Positive = 2304
  kernel: config.Positive = 7
  blocks: config.Positive = 12
  norm_epsilon: config.NonNegative = 1e-6
  causal: bool = False

  channels = 1
  architecture = 'CNN'
  representation = 'time-frequency'

  def __post_init__(self):
    if self.size % self.hop or (self.size - self.hop) % 2:
      raise config.ConfigError(
          f'size = {self.size}: expected a multiple of hop = {self.hop} that'
          ' differs from it by an even number'
      )
    if not self.kernel % 2:
      raise config.ConfigError(f'kernel = {self.kernel} must be odd')

  @property
  def _lookahead(self):
    return 0 if self.causal else self.kernel // 2

  def _conv(self):
    return streaming.Conv(self.width, self.kernel, lookahead=self._lookahead)

  def _norm(self):
    return streaming.FrameNorm(self.norm_epsilon)

  def _block(self):
    return streaming.Residual(
        streaming.Serial(
            (
                parts_base.convnext_depthwise(
                    self.width, self.kernel, self._lookahead
                ),
                self._norm(),
                streaming.Dense(self.hidden),
                streaming.Map(_gelu),
                streaming.Dense(self.width),
                streaming.Scale(1 / self.blocks),
            )
        )
    )

  def _stack(self):
    return streaming.Serial(tuple(self._block() for _ in range(self.blocks)))


@dataclasses.dataclass(frozen=True)
class VocosEncoder(_Vocos):
  """Mono audio [B, T, 1] -> latents [B, T / hop, dimension].

  Attributes:
    sample_rate: of the audio, for the mel scale.
    mels: bands, whose logarithm is taken.
  """

  sample_rate: config.Positive = 16000
  mels: config.Positive = 100

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    stft = streaming.CausalStft if self.causal else fourier.CentredStft
    bands = functools.partial(
        log_mel, sample_rate=self.sample_rate, mels=self.mels
    )
    return streaming.Serial(
        (
            stft(self.size, self.hop),
            streaming.Map(bands),
            self._conv(),
            self._norm(),
            self._stack(),
            self._norm(),
            streaming.Dense(self.dimension),
        )
    )


@dataclasses.dataclass(frozen=True)
class VocosDecoder(_Vocos):
  """Latents [B, F, dimension] -> mono audio [B, F hop, 1].

  Attributes:
    prior: what stands before the blocks: nothing, or (WavTokenizer) residual
      convolutions around attention, both normalised over the whole row.
    groups: of these norms.
    conditions: 0, or rows of scales and offsets of the norms, of which the first
      is used.
    latency: if causal, samples by which decoded audio lags, at most size - hop.
  """

  prior: Literal['none', 'attention'] = 'none'
  groups: config.Positive = 32
  conditions: config.Count = 0
  latency: config.Count = 0

  def __post_init__(self):
    super().__post_init__()
    if self.latency > (self.size - self.hop) * self.causal:
      raise config.ConfigError(
          f'latency = {self.latency}: at most size - hop ='
          f' {self.size - self.hop} if causal, else 0'
      )
    if self.causal and self.prior != 'none':
      raise config.ConfigError(
          f'prior = {self.prior!r} sees the whole row: it is not causal'
      )

  @property
  def architecture(self) -> str:
    return 'CNN' if self.prior == 'none' else 'CNN+T'

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    if self.causal:
      istft = streaming.CausalIstft(self.size, self.hop, self.latency)
    else:
      istft = fourier.CentredIstft(self.size, self.hop)
    return streaming.Serial(
        (
            self._conv(),
            streaming.Serial(self._prior()),
            self._norm(),
            self._stack(),
            streaming.FrameNorm(self.norm_epsilon),
            streaming.Dense(self.size + 2),
            streaming.Map(fourier.polar),
            istft,
        )
    )

  def _norm(self):
    if not self.conditions:
      return super()._norm()
    return ConditionalNorm(self.conditions, self.norm_epsilon)

  def _prior(self):
    if self.prior == 'none':
      return ()
    norm = streaming.TimeGroupNorm(self.groups, self.norm_epsilon)
    attend = attention.Attention(
        heads=1,
        mask_kind='bidirectional',
        positions=None,
        use_bias=True,
        out_bias=True,
    )
    convs = [
        residual_convs(self.width, self.groups, self.norm_epsilon)
        for _ in range(4)
    ]
    attend = streaming.Residual(streaming.Serial((norm.clone(), attend)))
    return *convs[:2], attend, *convs[2:], norm


def residual_convs(
    width: int, groups: int, epsilon: float
) -> streaming.Residual:
  """x + two convolutions of it, with norms over a row's time before them."""
  layers = []
  for _ in range(2):
    layers += [
        streaming.TimeGroupNorm(groups, epsilon),
        streaming.Map(jax.nn.silu),
        streaming.Conv(width, 3, lookahead=1),
    ]
  return streaming.Residual(streaming.Serial(tuple(layers)))


class ConditionalNorm(streaming.Steppable):
  """`FrameNorm` with a table of scales and offsets, of which row 0 is used.

  WavTokenizer trains with one row and publishes four; all are kept.

  Attributes:
    conditions: rows.
    epsilon: added to the variance.
  """

  conditions: int
  epsilon: float = 1e-6

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    shape, axes = (self.conditions, x.shape[-1]), (None, None)

    def first_row(name, init):
      return ops.materialize(ops.weight(self, name, init, shape, axes))[0]

    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(variance + self.epsilon)
    scale = first_row('scale', nn.initializers.ones)
    y = y * scale + first_row('bias', nn.initializers.zeros)
    return y.astype(x.dtype), mask, state


def log_mel(
    spectra: Complex[Array, 'B N bins'], sample_rate: int, mels: int
) -> Float[Array, 'B N M']:
  """Logarithms of mel bands of magnitudes, at least 1e-7."""
  power = jnp.square(spectra.real) + jnp.square(spectra.imag)
  # Without the floor silence has no gradient.
  magnitudes = jnp.sqrt(jnp.maximum(power, 1e-20))
  bands = mel.mel_spectrogram(magnitudes, sample_rate, mels)
  return jnp.log(jnp.maximum(bands, 1e-7))


def _gelu(x):
  return jax.nn.gelu(x, approximate=False)
