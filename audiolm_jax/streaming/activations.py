"""Activations with parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import ops
from audiolm_jax.streaming import base as streaming_base


class Snake(streaming_base.Steppable):
  """x + sin^2(alpha x) / (beta + 1e-9), alpha and beta for each channel.

  Liu et al. (2006.08195) and, with one factor in both places, DAC.

  Attributes:
    separate: whether beta is a parameter of its own ("SnakeBeta": BigVGAN,
      stable-audio, X-Codec-2) instead of alpha.
    log_scale: whether the parameters are the logarithms, zero at the start, of
      alpha and beta; else they start at one.
  """

  separate: bool = False
  log_scale: bool = False

  @nn.compact
  def process(self, x, mask, state, context):
    del context

    def factor(name):
      init = nn.initializers.constant(0.0 if self.log_scale else 1.0)
      value = ops.weight(self, name, init, (x.shape[-1],), (None,))
      value = ops.materialize(value, jnp.float32)
      return jnp.exp(value) if self.log_scale else value

    alpha = factor('alpha')
    beta = factor('beta') if self.separate else alpha
    # The reciprocal is that of a few channels, not of every position.
    y = x + sin_squared(alpha * x.astype(jnp.float32)) * (1 / (beta + 1e-9))
    return y.astype(x.dtype), mask, state


# sin^2(r) = r^2 (c0 + c1 r^2 + ...) to 6e-9 for |r| <= pi / 2: the minimax fit.
_COEFFICIENTS = (
    9.999998498e-01,
    -3.333321424e-01,
    4.444129677e-02,
    -3.170768195e-03,
    1.387177531e-04,
    -3.540983692e-06,
)
# pi in two parts, the first of so few bits that its products are exact.
_PI = 3.140625, 9.67653589793e-4


def sin_squared(x: Float[Array, '*n']) -> Float[Array, '*n']:
  """sin(x)^2 in fp32, to 3e-7 for |x| of some hundreds.

  A polynomial on one period: 4-5x faster on CPUs than the square of XLA's sine,
  which would take longer than DAC's convolutions.
  """
  periods = jax.lax.stop_gradient(jnp.round(x * np.float32(1 / np.pi)))
  r = (x - periods * _PI[0]) - periods * _PI[1]
  square = r * r
  y = jnp.full_like(x, _COEFFICIENTS[-1])
  for coefficient in reversed(_COEFFICIENTS[:-1]):
    y = y * square + coefficient
  return y * square


@jax.custom_jvp
def elu(x: Float[Array, '*n']) -> Float[Array, '*n']:
  """x where positive, else exp(x) - 1 to 2e-7 (Clevert et al. 1511.07289).

  A polynomial of x / 16, doubled four times by exp(2 a) - 1 = b (b + 2), where
  b = exp(a) - 1: half the time of `jax.nn.elu` on CPUs, which is that of a
  maximum, and no more than multiplications and additions, which XLA vectorises
  whatever the number of channels.
  """
  r = jnp.clip(x.astype(jnp.float32), -20.0, 0.0) * (1 / 16)
  y = jnp.full_like(r, 1 / 720)
  for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
    y = y * r + coefficient
  y = y * r
  for _ in range(4):
    y = y * (y + 2)
  return jnp.where(x > 0, x, y.astype(x.dtype))


@elu.defjvp
def _elu_jvp(primals, tangents):
  y = elu(*primals)
  return y, jnp.where(y > 0, 1, y + 1) * tangents[0]
