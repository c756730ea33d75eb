"""S4D's block: a diagonal state space model in each channel (2206.11893)."""

import math
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.ops.ssm import s4d
from audiolm_jax.streaming import base as streaming_base


class S4d(streaming_base.Steppable):
  """State space, skip, GELU, and a gated projection (GLU, 1612.08083).

  Linear and the same at all times, so that a sequence is one convolution.
  Parameters of the state space are batches of vectors (axis 'blocks'), which
  no optimizer decays.

  Attributes:
    state_width: numbers of each channel's state, two for a complex one.
    dt_min: least step size at the start.
    dt_max: largest step size at the start.
    form: of what is longer than a position: by Fourier transforms, or by the
      recurrence, which takes `state_width` times the memory.
  """

  state_width: Annotated[int, config.Range(min=2)] = 64
  dt_min: config.NonNegative = 1e-3
  dt_max: config.NonNegative = 1e-1
  form: Literal['convolution', 'scan'] = 'convolution'

  @property
  def receptive_field(self) -> None:
    return None

  @nn.nowrap
  def initial_state(self, batch, spec):
    """Complex states [B, D, N / 2]."""
    shape = (batch, spec.shape[-1], self.state_width // 2)
    return jnp.zeros(shape, jnp.complex64)

  def __call__(self, x, mask, context=None):
    return self.process(x, mask, None, context)[:2]

  @nn.compact
  def process(self, x, mask, state, context):
    """The next positions; without a state, a whole sequence."""
    del context
    width = x.shape[-1]
    # Layers before leave anything finite where masked.
    x = streaming_base.zero_masked(x, mask)
    model, signal = self._model(width), x.astype(jnp.float32)
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    if state is None or x.shape[1] > 1:
      form = s4d.convolve if self.form == 'convolution' else s4d.scan
      y, state = form(model, signal, lengths, state)
    else:
      y, after = s4d.step(model, signal[:, 0], state)
      y, state = y[:, None], jnp.where(mask[..., None], after, state)
    skip = ops.weight(
        self, 'skip', nn.initializers.normal(1.0), (width,), (None,)
    )
    y = y + signal * ops.materialize(skip)
    y = jax.nn.gelu(y).astype(x.dtype)
    y = ops.linear(self, 'out', y, 2 * width, ('embed', 'mlp'), use_bias=True)
    return jax.nn.glu(y), mask, state

  def _model(self, width):
    """The discretised state spaces."""
    shape = (width, self.state_width // 2)

    def parameters(name, init):
      w = ops.weight(self, name, init, shape, ('blocks', None))
      return ops.materialize(w)

    def log_dt(rng, shape, dtype):
      low, high = math.log(self.dt_min), math.log(self.dt_max)
      return jax.random.uniform(rng, shape, dtype, low, high)

    log_dt = ops.weight(self, 'log_dt', log_dt, (width,), (None,))
    # S4D-Lin: A = -1/2 + i pi n.
    half = nn.initializers.constant(math.log(0.5))
    normal = nn.initializers.normal(0.5**0.5)
    return s4d.discretise(
        ops.materialize(log_dt),
        parameters('log_decay', half),
        parameters('frequency', _linear_frequencies),
        jax.lax.complex(
            parameters('c_real', normal), parameters('c_imaginary', normal)
        ),
    )


def _linear_frequencies(rng, shape, dtype):
  del rng
  return jnp.broadcast_to(jnp.pi * jnp.arange(shape[1], dtype=dtype), shape)
