"""Mamba-2's block: a selective state space model (2405.21060)."""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones.mixers import short_conv
from audiolm_jax.ops.ssm import ssd
from audiolm_jax.streaming import base as streaming_base

_POSITIVE = config.Range(min=0)
_COUNT = config.Range(min=1)


class Mamba2(streaming_base.Steppable):
  """Projection, short convolution, SSD, gated norm, projection (figure 6).

  The step size dt, b and c depend on the input, so that the state may keep or
  forget; it is of constant size, whatever the length. Parameters of the
  recurrence are vectors, which no optimizer decays.

  Attributes:
    expand: inner width over the width of the input.
    state_width: N, of each channel's state.
    head_width: P, channels that share a step size; divides the inner width.
    groups: of heads that share b and c, and of channels normed together.
    conv_width: taps of the convolution.
    chunk: positions multiplied as one matrix, at most. Longer ones cost more
      products, shorter ones more states; 64 is fast on CPUs.
    dt_min: least step size at the start.
    dt_max: largest step size at the start.
    dt_floor: no step size is below this.
    dt_ceiling: nor above this, if not None.
    use_bias: whether the projections have biases.
    conv_bias: whether the convolution has one.
    norm_epsilon: of the gated norm.
  """

  expand: Annotated[int, _COUNT] = 2
  state_width: Annotated[int, _COUNT] = 64
  head_width: Annotated[int, _COUNT] = 64
  groups: Annotated[int, _COUNT] = 1
  conv_width: Annotated[int, _COUNT] = 4
  chunk: Annotated[int, _COUNT] = 64
  dt_min: Annotated[float, _POSITIVE] = 1e-3
  dt_max: Annotated[float, _POSITIVE] = 1e-1
  dt_floor: Annotated[float, _POSITIVE] = 0.0
  dt_ceiling: Annotated[float, _POSITIVE] | None = None
  use_bias: bool = False
  conv_bias: bool = True
  norm_epsilon: Annotated[float, _POSITIVE] = 1e-5

  @property
  def receptive_field(self) -> None:
    return None

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The convolution's inputs, and each head's state in fp32.

    Raises:
      ValueError: if heads do not fill the inner width, or groups the heads.
    """
    inner, heads = self._sizes(spec.shape[-1])
    channels = inner + 2 * self.groups * self.state_width
    conv_spec = jax.ShapeDtypeStruct((channels,), spec.dtype)
    shape = (batch, heads, self.head_width, self.state_width)
    return {
        'conv': self._conv(parent=None).initial_state(batch, conv_spec),
        'ssm': jnp.zeros(shape, jnp.float32),
    }

  @nn.nowrap
  def _sizes(self, width) -> tuple[int, int]:
    """(inner width, heads)."""
    inner = self.expand * width
    heads = inner // self.head_width
    if inner % self.head_width or heads % self.groups:
      raise ValueError(
          f'inner width {inner}, head_width {self.head_width} and groups'
          f' {self.groups}: heads must fill the width, groups the heads.'
      )
    return inner, heads

  @nn.nowrap
  def _conv(self, **options):
    return short_conv.ShortConv(self.conv_width, self.conv_bias, **options)

  @nn.compact
  def process(self, x, mask, state, context):
    width = x.shape[-1]
    inner, heads = self._sizes(width)
    shared = self.groups * self.state_width
    # Layers before leave anything finite where masked.
    x = streaming_base.zero_masked(x, mask)
    features = 2 * inner + 2 * shared + heads
    projected = ops.linear(
        self, 'input', x, features, ('embed', 'mlp'), self.use_bias
    )
    z, x, dt = jnp.split(projected, [inner, 2 * inner + 2 * shared], axis=-1)
    x, _, conv = self._conv(name='conv').process(
        x, mask, state['conv'], context
    )
    x = jax.nn.silu(x)
    x, b, c = jnp.split(x, [inner, inner + shared], axis=-1)
    x = x.reshape(*mask.shape, heads, self.head_width)
    b, c = (
        v.reshape(*mask.shape, self.groups, self.state_width) for v in (b, c)
    )
    dt = jax.nn.softplus(
        dt.astype(jnp.float32) + self._vector('dt_bias', self._init_dt, heads)
    )
    dt = jnp.clip(dt, self.dt_floor, self.dt_ceiling)
    dt = jnp.where(mask[..., None], dt, 0)
    a = -jnp.exp(self._vector('log_rate', _init_log_rate, heads))
    y, ssm = ssd.ssd(x, dt, a, b, c, state['ssm'], self.chunk)
    skip = self._vector('skip', nn.initializers.ones, heads)
    y += x * skip[:, None].astype(x.dtype)
    y = self._norm(y.reshape(*mask.shape, inner), z)
    y = ops.linear(self, 'out', y, width, ('mlp', 'embed'), self.use_bias)
    return y, mask, {'conv': conv, 'ssm': ssm}

  def _norm(self, y, z):
    """RMSNorm of the gated y over the channels of each group, in fp32."""
    dtype, shape = y.dtype, y.shape
    y = y.astype(jnp.float32) * jax.nn.silu(z.astype(jnp.float32))
    # Three axes: XLA's fusions over four take thrice as long on CPUs.
    y = y.reshape(-1, self.groups, shape[-1] // self.groups)
    square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(square + self.norm_epsilon)
    scale = self._vector('norm', nn.initializers.ones, shape[-1])
    return (y.reshape(shape) * scale).astype(dtype)

  def _vector(self, name, init, size):
    return ops.materialize(ops.weight(self, name, init, (size,), (None,)))

  @nn.nowrap
  def _init_dt(self, rng, shape, dtype):
    """Softplus of it is log-uniform in [dt_min, dt_max], and above 1e-4."""
    low, high = math.log(self.dt_min), math.log(self.dt_max)
    dt = jnp.exp(jax.random.uniform(rng, shape, dtype, low, high))
    dt = jnp.maximum(dt, 1e-4)
    return dt + jnp.log(-jnp.expm1(-dt))


def _init_log_rate(rng, shape, dtype):
  """Rates uniform in [1, 16], as the authors' code has them."""
  return jnp.log(jax.random.uniform(rng, shape, dtype, 1.0, 16.0))
