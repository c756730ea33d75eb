"""Transformers over time: causal with a window, or over the whole row."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import ops
from audiolm_jax.ops import attention as attention_ops
from audiolm_jax.ops import rotary
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers
from audiolm_jax.streaming import norms

Rotary = Literal['time', 'heads', 'none']
Activation = Literal['gelu', 'silu', 'relu', 'swiglu']


class LocalAttention(streaming_base.Steppable):
  """Multi-head attention; steps keep the last `window` keys in a ring.

  Attributes:
    heads: of queries.
    kv_heads: of keys and values; divides heads (GQA, 2305.13245). None: heads.
    head_width: None for width / heads.
    window: a query sees itself and the window - 1 positions before it; None
      for all.
    causal: whether the future is unseen. Not causal means no window.
    rotary: what rotary positions count: time, or (X-Codec-2's published
      weights were trained with this) the number of the head.
    rope_theta: base of the rotary frequencies.
    use_bias: whether the projections have biases.

  Raises:
    ValueError: on use, for a window without causality, or heads that kv_heads
      does not divide.
  """

  heads: int
  kv_heads: int | None = None
  head_width: int | None = None
  window: int | None = None
  causal: bool = True
  rotary: Rotary = 'time'
  rope_theta: float = 10_000.0
  use_bias: bool = False

  @property
  def steppable(self) -> bool:
    return self.causal and self.window is not None

  @property
  def receptive_field(self) -> int | None:
    return self.window

  @nn.nowrap
  def initial_state(self, batch, spec):
    """Keys and values of the last positions, and how many there have been."""
    kv_heads, size = self._shape(spec.shape[-1])
    zeros = jnp.zeros((batch, kv_heads, self.window or 0, size), spec.dtype)
    return {
        'keys': zeros,
        'values': zeros,
        'position': jnp.zeros(batch, jnp.int32),
    }

  @nn.nowrap
  def _shape(self, width):
    """(heads of keys, width of a head) for inputs of `width`."""
    kv_heads = self.kv_heads or self.heads
    if self.heads % kv_heads or (not self.head_width and width % self.heads):
      raise ValueError(
          f'width {width}, heads {self.heads} and kv_heads {kv_heads}: each'
          ' must be a multiple of the next.'
      )
    return kv_heads, self.head_width or width // self.heads

  def process(self, x, mask, state, context):
    del context
    y, state = self._attend(x, mask, state)
    return y, mask, state

  def __call__(self, x, mask, context=None):
    del context
    if self.window is not None and not self.causal:
      raise ValueError('attention with a window is causal')
    return (
        self._attend(streaming_base.zero_masked(x, mask), mask, None)[0],
        mask,
    )

  @nn.compact
  def _attend(self, x, mask, state):
    batch, length, width = x.shape
    kv_heads, size = self._shape(width)
    positions = np.arange(length, dtype=np.int32)[None]
    if state is not None:
      positions = state['position'][:, None] + positions

    def project(name, heads):
      y = ops.linear(
          self, name, x, heads * size, ('embed', 'heads'), self.use_bias
      )
      return y.reshape(batch, length, heads, size)

    q, k = project('query', self.heads), project('key', kv_heads)
    v = project('value', kv_heads)
    if self.rotary != 'none':
      rotation = None
      if self.rotary == 'time':
        rotation = rotary.Rope(self.rope_theta).rotation(positions, size)
      q = self._rotate(q, rotation)
      k = self._rotate(k, rotation)
    if state is None:
      keys, values = attention_ops.heads_first(k), attention_ops.heads_first(v)
      sets = [attention_ops.Keys(keys, values, positions, mask)]
    else:
      state, sets = attention_ops.extend_ring(state, k, v, positions, mask)
    kind = 'causal' if self.causal else 'bidirectional'
    kind = attention_ops.Mask(kind, self.window)
    y = attention_ops.attend_keys(q, positions, sets, kind)
    y = y.reshape(batch, length, self.heads * size)
    y = ops.linear(self, 'out', y, width, ('heads', 'embed'), self.use_bias)
    return y, state

  def _rotate(self, x, rotation):
    if rotation is None:  # by the number of the head
      heads = np.arange(x.shape[2], dtype=np.int32)[None]
      rope = rotary.Rope(self.rope_theta)
      cos, sin = rope.rotation(heads, x.shape[3])
      rotation = jnp.moveaxis(cos, 1, 2), jnp.moveaxis(sin, 1, 2)
    return rotary.rotate(x, rotation)


class FeedForward(streaming_base.Steppable):
  """A perceptron of two layers at each position, gated for 'swiglu'.

  Attributes:
    hidden: its hidden width.
    activation: gelu is the exact one.
    use_bias: whether the projections have biases.
  """

  hidden: int
  activation: Activation = 'gelu'
  use_bias: bool = False

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    into = self.hidden, ('embed', 'mlp'), self.use_bias
    h = ops.linear(self, 'up', x, *into)
    if self.activation == 'swiglu':
      h *= jax.nn.silu(ops.linear(self, 'gate', x, *into))
    elif self.activation == 'gelu':
      h = jax.nn.gelu(h, approximate=False)
    else:
      h = {'silu': jax.nn.silu, 'relu': jax.nn.relu}[self.activation](h)
    y = ops.linear(
        self, 'down', h, x.shape[-1], ('mlp', 'embed'), self.use_bias
    )
    return y, mask, state


class TransformerBlock(streaming_base.Steppable):
  """x + scale(attention(norm(x))), then the same with the perceptron.

  Attributes:
    attention: of time.
    mlp: of channels.
    norm: LayerNorm or RMSNorm.
    norm_epsilon: added to the variance.
    layer_scale: start of a learned factor for each channel of what the two
      branches add (2103.17239); None for no such factors.
  """

  attention: LocalAttention
  mlp: FeedForward
  norm: Literal['layer', 'rms'] = 'layer'
  norm_epsilon: float = 1e-5
  layer_scale: float | None = None

  @property
  def steppable(self) -> bool:
    return self.attention.steppable

  @property
  def receptive_field(self) -> int | None:
    return self.attention.receptive_field

  @nn.nowrap
  def initial_state(self, batch, spec):
    return self.attention.initial_state(batch, spec)

  def process(self, x, mask, state, context):
    def attend(y):
      return self.attention.process(y, mask, state, context)

    y, state = self._run(x, mask, attend)
    return y, mask, state

  def __call__(self, x, mask, context=None):
    def attend(y):
      return *self.attention(y, mask, context), None

    return self._run(streaming_base.zero_masked(x, mask), mask, attend)[0], mask

  @nn.compact
  def _run(self, x, mask, attend):
    norm = {'layer': streaming_layers.FrameNorm, 'rms': norms.RmsNorm}[
        self.norm
    ]

    def normed(name):
      layer = norm(self.norm_epsilon, name=f'{name}_norm')
      return layer.process(x, mask, (), None)[0]

    def scaled(name, y):
      if self.layer_scale is None:
        return y
      layer = norms.Scale(self.layer_scale, name=f'{name}_scale')
      return layer.process(y, mask, (), None)[0]

    y, _, state = attend(normed('attention'))
    x = x + scaled('attention', y)
    y, _, _ = self.mlp.process(normed('mlp'), mask, (), None)
    x = sharding.constrain(x + scaled('mlp', y), ('batch',))
    return x, state


class Transformer(streaming_base.Steppable):
  """A stack of transformer blocks, without a norm at its end.

  The layers are not scanned: a step, bound by reading the weights, then took
  half the time on CPUs in a probe, and compiles nearly as fast.

  Attributes:
    layers: how many.
    heads: of queries.
    mlp_width: hidden width of the perceptrons.
    kv_heads: see `LocalAttention`, as head_width, window, causal, rotary and
      rope_theta.
    activation: see `FeedForward`.
    norm: see `TransformerBlock`, as norm_epsilon and layer_scale.
    use_bias: whether projections have biases.
  """

  layers: int
  heads: int
  mlp_width: int
  kv_heads: int | None = None
  head_width: int | None = None
  window: int | None = None
  causal: bool = True
  rotary: Rotary = 'time'
  rope_theta: float = 10_000.0
  activation: Activation = 'gelu'
  norm: Literal['layer', 'rms'] = 'layer'
  norm_epsilon: float = 1e-5
  layer_scale: float | None = None
  use_bias: bool = False

  def setup(self):
    self.block = [self._block() for _ in range(self.layers)]

  @nn.nowrap
  def _attention(self, **options):
    return LocalAttention(
        self.heads,
        self.kv_heads,
        self.head_width,
        self.window,
        self.causal,
        self.rotary,
        self.rope_theta,
        self.use_bias,
        **options,
    )

  @nn.nowrap
  def _block(self):
    return TransformerBlock(
        self._attention(parent=None),
        FeedForward(
            self.mlp_width, self.activation, self.use_bias, parent=None
        ),
        self.norm,
        self.norm_epsilon,
        self.layer_scale,
    )

  @property
  def steppable(self) -> bool:
    return self.causal and self.window is not None

  @property
  def receptive_field(self) -> int | None:
    return self.window and self.layers * (self.window - 1) + 1

  @nn.nowrap
  def initial_state(self, batch, spec):
    attend = self._attention(parent=None)
    return (attend.initial_state(batch, spec),) * self.layers

  def process(self, x, mask, state, context):
    states = []
    for block, layer_state in zip(self.block, state, strict=True):
      x, _, layer_state = block.process(x, mask, layer_state, context)
      states.append(layer_state)
    return x, mask, tuple(states)

  def __call__(self, x, mask, context=None):
    for block in self.block:
      x, _ = block(x, mask, context)
    return x, mask
