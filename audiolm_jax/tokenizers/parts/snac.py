"""The encoder and decoder of SNAC (Siuzdak et al. 2024, 2410.14411, section 3).

DAC's units (`parts.dac`) with depthwise convolutions, attention within windows
at the latents' rate (not in the speech model), and noise in the decoder.
"""

import dataclasses
import functools
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.ops import attention as attention_ops
from audiolm_jax.ops import rotary
from audiolm_jax.tokenizers.parts import dac

# Of the attention; neither is an option in the original.
HEAD = 64
THETA = 10_000.0


@dataclasses.dataclass(frozen=True)
class _Snac(dac.Units):
  """What encoder and decoder share.

  Attributes:
    dimension: of the latents, the encoder's last width.
    attention_window: latent frames that see each other, from one multiple of
      this to the next; None for no attention.
  """

  dimension: config.Positive = 768
  depthwise: bool = True
  attention_window: Annotated[int | None, config.Range(min=1)] = None

  @property
  def architecture(self) -> str:
    return 'CNN' if self.attention_window is None else 'CNN+T'

  def _attention(self, width):
    if self.attention_window is None:
      return []
    if width % HEAD:
      raise config.ConfigError(
          f'attention heads of {HEAD} do not divide the width {width}'
      )
    return [WindowAttention(self.attention_window)]


@dataclasses.dataclass(frozen=True)
class SnacEncoder(_Snac):
  """Audio [B, T, C] -> latents [B, T / hop, dimension]."""

  widths: config.Sizes = (48, 96, 192, 384, 768)
  strides: config.Sizes = (2, 4, 8, 8)

  def __post_init__(self):
    super().__post_init__()
    if self.dimension != self.widths[-1]:
      raise config.ConfigError(
          f'dimension = {self.dimension} must be the last width,'
          f' {self.widths[-1]}'
      )

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    steps = zip(self.widths, self.widths[1:], self.strides, strict=False)
    groups = self.dimension if self.depthwise else 1
    return streaming.Serial(
        (
            self.conv(self.widths[0], 7),
            *[self.down(*step) for step in steps],
            *self._attention(self.dimension),
            self.conv(self.dimension, 7, groups=groups),
        )
    )


@dataclasses.dataclass(frozen=True)
class SnacDecoder(_Snac):
  """Latents [B, F, dimension] -> audio [B, F hop, C].

  Attributes:
    noise: whether noise is added, by a learned gain, after each upsampling. The
      original's decoder is random; here only with a key as the layer's context
      'noise', so a codec sounds the mean and is the same at every call.
  """

  widths: config.Sizes = (1024, 512, 256, 128, 64)
  strides: config.Sizes = (8, 8, 4, 2)
  noise: bool = True

  @functools.cached_property
  def layer(self) -> streaming.Layer:
    first = self.widths[0]
    layers = [self.conv(first, 7)]
    if self.depthwise:
      size = self.dimension
      layers = [self.conv(size, 7, groups=size), self.conv(first, 1)]
    layers += self._attention(first)
    for i, stride in enumerate(self.strides):
      width = self.widths[i + 1]
      noise = ()
      if self.noise:
        noise = (Noise(self.conv(width, 1, bias=False), index=i),)
      layers.append(self.up(width, stride, then=noise))
    layers += [
        self.snake(),
        self.conv(self.channels, 7),
        streaming.Map(jnp.tanh),
    ]
    return streaming.Serial(tuple(layers))


class Noise(streaming.Steppable):
  """x + noise * gain(x), one noise for all channels of a position.

  Without a key as context 'noise': x.

  Attributes:
    gain: keeps the width.
    index: tells the noise of one layer from that of another.
  """

  gain: streaming.Layer
  index: int = 0

  @property
  def steppable(self) -> bool:
    return self.gain.steppable

  @nn.nowrap
  def initial_state(self, batch, spec):
    return self.gain.initial_state(batch, spec)

  def process(self, x, mask, state, context):
    y, _, state = self.gain.step(x, mask, state)
    if context is not None and 'noise' in context:
      key = jax.random.fold_in(context['noise'], self.index)
      y *= jax.random.normal(key, (*x.shape[:2], 1), x.dtype)
      x = x + y
    return x, mask, state


class WindowAttention(streaming.Steppable):
  """x + attention(norm(x)) among the positions of a window.

  Windows do not overlap; positions are rotary, from the window's start.

  Attributes:
    window: its size.
  """

  window: int

  @property
  def block_size(self) -> int:
    return self.window

  @property
  def receptive_field(self) -> int:
    return self.window

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    batch, length, width = x.shape
    count = batch * (length // self.window)
    x = x.reshape(count, self.window, width)
    valid = mask.reshape(count, self.window)
    norm = streaming.FrameNorm(name='norm')
    y, _, _ = norm.process(x, valid, (), None)
    axes = ('embed', 'heads')
    y = ops.linear(self, 'query_key_value', y, 3 * width, axes)
    y = y.reshape(count, self.window, 3, width // HEAD, HEAD)
    q, k, v = jnp.moveaxis(y, 2, 0)
    positions = np.arange(self.window)[None]
    rotation = rotary.Rope(THETA).rotation(positions, HEAD)
    q, k = rotary.rotate(q, rotation), rotary.rotate(k, rotation)
    seen = jnp.ones((count, self.window, self.window), bool)
    y = attention_ops.attend(q, k, v, seen, valid).reshape(x.shape)
    y = x + ops.linear(self, 'out', y, width, axes[::-1])
    return y.reshape(batch, length, width), mask, state
