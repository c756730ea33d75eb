"""Griffin's recurrent block: a real-gated linear recurrence (2402.19427)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones.mixers import short_conv
from audiolm_jax.ops.ssm import linear_recurrence
from audiolm_jax.streaming import base as streaming_base

_BLOCKS = nn.initializers.lecun_normal(batch_axis=(0,))


class RgLru(streaming_base.Steppable):
  """Two branches, multiplied (section 2.3): GeLU, and convolution and RG-LRU.

  Attributes:
    inner: width of the branches; None for that of the input.
    heads: blocks of the gates' matrices; divides the inner width.
    conv_width: taps of the convolution.
    sharpness: c, the largest power to which the factor is raised.
    use_bias: whether the projections have biases; the gates always have.
  """

  inner: config.Positive | None = None
  heads: config.Positive = 4
  conv_width: config.Positive = 4
  sharpness: config.NonNegative = 8.0
  use_bias: bool = True

  @property
  def receptive_field(self) -> None:
    return None

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The convolution's inputs, the recurrence's h, whether a row has begun."""
    inner = self.inner or spec.shape[-1]
    conv_spec = jax.ShapeDtypeStruct((inner,), spec.dtype)
    return {
        'conv': self._conv(parent=None).initial_state(batch, conv_spec),
        'h': jnp.zeros((batch, inner), jnp.float32),
        'begun': jnp.zeros(batch, bool),
    }

  @nn.nowrap
  def _conv(self, **options):
    return short_conv.ShortConv(self.conv_width, **options)

  @nn.compact
  def process(self, x, mask, state, context):
    width = x.shape[-1]
    inner = self.inner or width
    # Layers before leave anything finite where masked.
    x = streaming_base.zero_masked(x, mask)
    into = inner, ('embed', 'mlp'), self.use_bias
    gate = jax.nn.gelu(ops.linear(self, 'gate', x, *into))
    x = ops.linear(self, 'input', x, *into)
    x, _, conv = self._conv(name='conv').process(
        x, mask, state['conv'], context
    )
    x, h = self._recur(x, mask, state)
    x *= gate
    y = ops.linear(self, 'out', x, width, ('mlp', 'embed'), self.use_bias)
    begun = state['begun'] | jnp.any(mask, axis=1)
    return y, mask, {'conv': conv, 'h': h, 'begun': begun}

  def _recur(self, x, mask, state):
    """RG-LRU (eq. 1 to 4), in fp32: (outputs, the state after them)."""
    size = x.shape[-1]
    recurrence = self._gate(x, 'recurrence_gate')
    let_in = self._gate(x, 'input_gate')
    rate = ops.weight(self, 'rate', self._init_rate, (size,), (None,))
    first = jnp.pad(~state['begun'][:, None], ((0, 0), (0, x.shape[1] - 1)))
    a, gain = linear_recurrence.rg_lru_coefficients(
        recurrence, ops.materialize(rate), first, self.sharpness
    )
    valid = mask[..., None]
    a = jnp.where(valid, a, 1)
    inputs = jnp.where(valid, gain * let_in * x.astype(jnp.float32), 0)
    if x.shape[1] == 1:
      h = a[:, 0] * state['h'] + inputs[:, 0]
      return h[:, None].astype(x.dtype), h
    y, h = linear_recurrence.linear_recurrence(a, inputs, state['h'])
    return y.astype(x.dtype), h

  def _gate(self, x, name):
    """A sigmoid of what a block-diagonal matrix makes of x, in fp32.

    Raises:
      ValueError: if heads do not divide the inner width.
    """
    width = x.shape[-1]
    if width % self.heads:
      raise ValueError(f'{self.heads} heads do not divide a width of {width}')
    size = width // self.heads
    shape = (self.heads, size, size)
    w = ops.weight(self, name, _BLOCKS, shape, ('blocks', None, None))
    blocks = x.reshape(*x.shape[:2], self.heads, size)
    y = ops.einsum('bnhi,hio->bnho', blocks, w).reshape(x.shape)
    zeros = nn.initializers.zeros
    bias = ops.weight(self, f'{name}_bias', zeros, (width,), (None,))
    return jax.nn.sigmoid(y.astype(jnp.float32) + ops.materialize(bias))

  @nn.nowrap
  def _init_rate(self, rng, shape, dtype):
    """What a fully open gate keeps, a^c, is uniform in [0.9, 0.999]."""
    kept = jax.random.uniform(rng, shape, dtype, 0.9, 0.999)
    # The inverse of softplus.
    return jnp.log(jnp.expm1(-jnp.log(kept) / self.sharpness))
