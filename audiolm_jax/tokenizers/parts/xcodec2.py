"""X-Codec-2: what is said and how it sounds in one scalar-quantised code.

Ye et al. 2025 (2502.04128, section 3.1). BigCodec's encoder (2409.05377) hears
the waveform, 16 layers of w2v-BERT 2.0 its meaning; a transformer at frame rate
and an inverse STFT decode.
"""

import dataclasses
import functools
import math
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.tokenizers.bottlenecks import fsq
from audiolm_jax.tokenizers.parts import base as parts_base
from audiolm_jax.tokenizers.parts import conformer
from audiolm_jax.tokenizers.parts import dac
from audiolm_jax.tokenizers.parts import fourier
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.tokenizers.parts import vocos

# Of the two stages' grid; also that of `bottlenecks.fsq`.
_STRETCH = 1e-3


@dataclasses.dataclass(frozen=True)
class Xcodec2Encoder(parts_base.Part):
  """Mono 16 kHz audio [B, T, 1] -> latents [B, T / 320, len(grid)].

  The published weights squeeze the latents twice: here, and in `Fsq(grid,
  project=False)` again.

  Attributes:
    width: channels of the acoustic branch at the audio's rate; they double with
      every stride.
    strides: of the acoustic branch; 320 together, as the features' hop is.
    acoustic: width of what the acoustic branch gives.
    semantic: width of the Conformer.
    hidden: of its perceptrons.
    layers: its blocks.
    heads: of its attention.
    kernel: taps of its convolutions.
    left: positions before a query that its attention tells apart.
    right: positions after a query that its attention tells apart.
    norm_epsilon: of its norms.
    grid: values of each dimension of the latents.
    weight_norm: whether acoustic kernels keep direction and gain apart.
  """

  width: config.Positive = 48
  strides: config.Sizes = (2, 2, 4, 4, 5)
  acoustic: config.Positive = 1024
  semantic: config.Positive = 1024
  hidden: config.Positive = 4096
  layers: config.Positive = 16
  heads: config.Positive = 16
  kernel: config.Positive = 31
  left: config.Positive = 64
  right: config.Positive = 8
  norm_epsilon: config.NonNegative = 1e-5
  grid: config.Sizes = (4,) * 8
  weight_norm: bool = False

  channels = 1
  architecture = 'CNN+T'

  def __post_init__(self):
    if self.hop != conformer.KaldiFeatures().block_size:
      raise config.ConfigError(
          f'strides = {self.strides}: their product must be 320, the hop of the'
          ' semantic features'
      )

  @property
  def hop(self) -> int:
    return math.prod(self.strides)

  @property
  def dimension(self) -> int:
    return len(self.grid)

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    squeeze = functools.partial(fsq.bound, grid=self.grid, stretch=_STRETCH)
    return streaming.Serial(
        (
            streaming.Parallel((self._semantic(), self._acoustic()), 'concat'),
            streaming.Dense(self.semantic + self.acoustic),
            streaming.Dense(self.dimension),
            streaming.Map(squeeze),
        )
    )

  def _semantic(self):
    def conv(bias):
      return streaming.Conv(self.semantic, 3, use_bias=bias, lookahead=1)

    blocks = [
        conformer.conformer_block(
            self.semantic,
            self.hidden,
            self.heads,
            self.kernel,
            self.left,
            self.right,
            self.norm_epsilon,
        )
        for _ in range(self.layers)
    ]
    inner = streaming.Serial((conv(True), streaming.Map(nn.relu), conv(True)))
    adapter = (
        conv(False),
        streaming.Map(nn.relu),
        streaming.Residual(inner),
        conv(False),
    )
    return streaming.Serial(
        (
            conformer.KaldiFeatures(),
            streaming.FrameNorm(self.norm_epsilon),
            streaming.Dense(self.semantic),
            streaming.Serial(tuple(blocks)),
            streaming.Serial(adapter),
        )
    )

  def _acoustic(self):
    widths = tuple(self.width * 2**i for i in range(len(self.strides) + 1))
    return BigCodecEncoder(
        dimension=self.acoustic,
        widths=widths,
        strides=self.strides,
        weight_norm=self.weight_norm,
    ).layer


@dataclasses.dataclass(frozen=True)
class Xcodec2Decoder(parts_base.Part):
  """Latents [B, F, dimension] -> mono audio [B, F hop, 1].

  Attributes:
    hop: samples a frame.
    dimension: of the latents.
    fused: width that they are mapped to, for the encoder's two branches.
    width: of the transformer.
    hidden: of its perceptrons.
    layers: its blocks.
    heads: of its attention.
    head_width: of each.
    rope_theta: base of the rotary frequencies. They turn by the number of the
      head, not by time: that is how the published weights were trained. As each
      query head has a key head that turns alike, it changes nothing but rounding.
    norm_epsilon: of its norms.
    groups: of the norms of the convolutions around it.
  """

  hop: config.Positive = 320
  dimension: config.Positive = 8
  fused: config.Positive = 2048
  width: config.Positive = 1024
  hidden: config.Positive = 4096
  layers: config.Positive = 12
  heads: config.Positive = 16
  head_width: config.Positive = 64
  rope_theta: Annotated[float, config.Range(min=1)] = 10_000.0
  norm_epsilon: config.NonNegative = 1e-6
  groups: config.Positive = 32

  channels = 1
  architecture = 'CNN+T'
  representation = 'time-frequency'

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    convs = [
        vocos.residual_convs(self.width, self.groups, 1e-6) for _ in range(4)
    ]
    transformer = transformer_lib.Transformer(
        layers=self.layers,
        heads=self.heads,
        mlp_width=self.hidden,
        head_width=self.head_width,
        causal=False,
        rotary='heads',
        rope_theta=self.rope_theta,
        activation='silu',
        norm='rms',
        norm_epsilon=self.norm_epsilon,
    )
    size = 4 * self.hop
    return streaming.Serial(
        (
            streaming.Dense(self.fused),
            streaming.Dense(self.width),
            streaming.Conv(self.width, 7, lookahead=3),
            *convs[:2],
            transformer,
            *convs[2:],
            streaming.FrameNorm(1e-6),
            streaming.Dense(size + 2),
            streaming.Map(fourier.polar),
            fourier.CentredIstft(size, self.hop),
        )
    )


@dataclasses.dataclass(frozen=True)
class BigCodecEncoder(dac.DacEncoder):
  """DAC's encoder whose activations do not alias (Xin et al. 2024, 2409.05377)."""

  def snake(self):
    return AntiAliasedSnake(separate=True, log_scale=True)


class AntiAliasedSnake(streaming.Snake):
  """Snake at twice the rate, between two low-pass filters.

  Lee et al. 2022 (BigVGAN, 2206.04658, section 3.2). The filters are those of a
  Kaiser window; both see a row's first and last value around it. Each rate is
  kept as its even and its odd samples, which is faster than interleaving them.
  """

  @property
  def steppable(self) -> bool:
    return False

  @nn.nowrap
  def reach(self, start, stop):
    return start - 5, stop + 5

  def __call__(self, x, mask, context=None):
    if not x.shape[1]:
      return x, mask
    x = streaming.zero_masked(x, mask)
    last = jnp.maximum(mask.sum(axis=1) - 1, 0)[:, None, None]

    def ending(y):
      """Where masked, the row's last value of y."""
      return jnp.take_along_axis(y, last, axis=1)

    x = _extended(x, mask, x[:, :1], ending(x), 3, 3)
    filters = low_pass()
    even = ops.depthwise_conv(x[:, :-1], 2 * filters[::-2, None])
    odd = ops.depthwise_conv(x[:, 1:], 2 * filters[-2::-2, None])
    y, _, _ = self.process(jnp.concatenate([even, odd], axis=1), None, (), None)
    even, odd = jnp.split(y, 2, axis=1)
    ends = even[:, :1], ending(odd)
    even = _extended(even, mask, *ends, 2, 3)
    odd = _extended(odd, mask, *ends, 3, 2)
    y = ops.depthwise_conv(even, filters[1::2, None])
    return y + ops.depthwise_conv(odd, filters[::2, None]), mask


def _extended(x, mask, first, last, before, after):
  """x with `first` before each row and `last` from its end on."""
  x = jnp.where(mask[..., None], x, last)
  start = jnp.repeat(first, before, axis=1)
  return jnp.concatenate([start, x, jnp.repeat(last, after, axis=1)], axis=1)


@functools.cache
def low_pass() -> np.ndarray:
  """[12] taps of sum 1 that halve the band: a sinc under a Kaiser window."""
  taps, cutoff, transition = 12, 0.25, 0.3
  # Kaiser's formulae for the attenuation and the window's shape.
  attenuation = 2.285 * (taps // 2 - 1) * np.pi * 4 * transition + 7.95
  window = np.kaiser(taps, 0.1102 * (attenuation - 8.7))
  time = np.arange(taps) - (taps - 1) / 2
  filters = window * np.sinc(2 * cutoff * time)
  return (filters / filters.sum()).astype(np.float32)
