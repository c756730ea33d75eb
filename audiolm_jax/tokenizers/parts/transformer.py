"""Transformers over the frames of codecs: causal with a window, or of the row.

Attention and perceptron are those of `backbones`. Their stack is not: codecs
name their parameters as `interop` knows them, have learned factors of what
branches add, and are not scanned.
"""

from typing import Literal

import flax.linen as nn

from audiolm_jax import streaming
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import rotary
from audiolm_jax.ops import sharding


class TransformerBlock(streaming.Steppable):
  """x + scale(attention(norm(x))), then the same with the perceptron.

  Attributes:
    attention: of time.
    mlp: of channels.
    norm: LayerNorm or RMSNorm.
    norm_epsilon: added to the variance.
    layer_scale: start of a learned factor for each channel of what the two
      branches add (2103.17239); None for no such factors.
  """

  attention: attention.Attention
  mlp: mlps.Dense
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

  def __call__(self, x, mask, context=None):
    x = streaming.zero_masked(x, mask)
    return self.process(x, mask, None, context)[:2]

  @nn.compact
  def process(self, x, mask, state, context):
    """The next positions; without a state, a whole sequence."""
    y = self._norm('attention', x, mask)
    if state is None:
      y, _ = self.attention(y, mask, context)
    else:
      y, _, state = self.attention.process(y, mask, state, context)
    x = x + self._scaled('attention', y, mask)
    y, _ = self.mlp(self._norm('mlp', x, mask), mask)
    y = self._scaled('mlp', y, mask)
    return sharding.constrain(x + y, ('batch',)), mask, state

  def _norm(self, name, x, mask):
    kinds = {'layer': streaming.FrameNorm, 'rms': streaming.RmsNorm}
    layer = kinds[self.norm](self.norm_epsilon, name=f'{name}_norm')
    return layer.process(x, mask, (), None)[0]

  def _scaled(self, name, y, mask):
    if self.layer_scale is None:
      return y
    layer = streaming.Scale(self.layer_scale, name=f'{name}_scale')
    return layer.process(y, mask, (), None)[0]


class Transformer(streaming.Steppable):
  """A stack of transformer blocks, without a norm at its end.

  The layers are not scanned: a step, bound by reading the weights, then took
  half the time on CPUs in a probe, and compiles nearly as fast.

  Attributes:
    layers: how many.
    heads: of queries.
    mlp_width: hidden width of the perceptrons.
    kv_heads: see `attention.Attention`, as head_width.
    window: a position sees itself and the window - 1 before it; None for all.
    causal: whether the future is unseen. Not causal means no window.
    rotary: what rotary positions count: time, the number of the head, which
      changes nothing without fewer kv_heads (see `rotary.HeadRope`), or nothing.
    rope_theta: base of the rotary frequencies.
    activation: see `mlps.activate`.
    norm: see `TransformerBlock`, as norm_epsilon and layer_scale.
    use_bias: whether projections have biases.

  Raises:
    ValueError: on use, for a window without causality, or heads that kv_heads
      does not divide.
  """

  layers: int
  heads: int
  mlp_width: int
  kv_heads: int | None = None
  head_width: int | None = None
  window: int | None = None
  causal: bool = True
  rotary: Literal['time', 'heads', 'none'] = 'time'
  rope_theta: float = 10_000.0
  activation: Literal['gelu', 'silu', 'relu', 'swiglu'] = 'gelu'
  norm: Literal['layer', 'rms'] = 'layer'
  norm_epsilon: float = 1e-5
  layer_scale: float | None = None
  use_bias: bool = False

  def setup(self):
    self.block = [self._block() for _ in range(self.layers)]

  @nn.nowrap
  def _block(self, **options):
    if self.window is not None and not self.causal:
      raise ValueError('attention with a window is causal')
    positions = {
        'time': rotary.Rope(self.rope_theta),
        'heads': rotary.HeadRope(self.rope_theta),
        'none': None,
    }
    return TransformerBlock(
        attention.Attention(
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            window=self.window,
            mask_kind='causal' if self.causal else 'bidirectional',
            positions=positions[self.rotary],
            use_bias=self.use_bias,
            out_bias=self.use_bias,
            parent=None,
        ),
        mlps.Dense(
            self.mlp_width, self.activation, use_bias=self.use_bias, parent=None
        ),
        self.norm,
        self.norm_epsilon,
        self.layer_scale,
        **options,
    )

  @property
  def steppable(self) -> bool:
    return self.causal and self.window is not None

  @property
  def receptive_field(self) -> int | None:
    return self.window and self.layers * (self.window - 1) + 1

  @nn.nowrap
  def initial_state(self, batch, spec):
    block = self._block(parent=None)
    return (block.initial_state(batch, spec),) * self.layers

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
