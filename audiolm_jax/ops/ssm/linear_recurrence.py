"""h[t] = a[t] h[t-1] + x[t], element by element, and RG-LRU's coefficients."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from audiolm_jax.ops import linear_maps
from audiolm_jax.ops import sharding

# Largest derivative of the square root in `rg_lru_coefficients`.
_STEEPEST = 1000.0


def linear_recurrence(
    a: Inexact[Array, 'B T *D'],
    x: Inexact[Array, 'B T *D'],
    state: Inexact[Array, 'B *D'],
    parallel: bool | None = None,
) -> tuple[Inexact[Array, 'B T *D'], Inexact[Array, 'B *D']]:
  """h[t] = a[t] h[t-1] + x[t] over time, real or complex.

  a = 1 and x = 0 leave the state untouched: so masked positions are passed.
  The gradient is a recurrence backward in time (1709.04057), which
  keeps nothing but h.

  Args:
    a: factors.
    x: inputs, of the same dtype.
    state: h before the first position.
    parallel: in log2(T) sweeps (`jax.lax.associative_scan`) or one position
      after the other. None: one after the other on CPUs, where that is twice
      as fast and compiles in a fifth of the time.

  Returns:
    (h at each position, h after the last one).
  """
  if parallel is None:
    parallel = sharding.platform() != 'cpu'
  a, x = jnp.broadcast_arrays(a, x)
  return _recurrence(parallel, a, x, state)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _recurrence(parallel, a, x, state):
  h = _run(parallel, a, x, state, reverse=False)
  return h, h[:, -1]


def _run(parallel, a, x, state, reverse):
  if not parallel:

    def step(h, now):
      factor, inputs = now
      h = factor * h + inputs
      return h, h

    inputs = jnp.swapaxes(a, 0, 1), jnp.swapaxes(x, 0, 1)
    _, h = jax.lax.scan(step, state, inputs, reverse=reverse)
    return jnp.swapaxes(h, 0, 1)

  def combine(first, second):
    return first[0] * second[0], second[0] * first[1] + second[1]

  product, h = jax.lax.associative_scan(combine, (a, x), reverse, axis=1)
  return h + product * state[:, None]


@_recurrence.defjvp
def _recurrence_jvp(parallel, primals, tangents):
  a, x, state = primals
  h = _run(parallel, a, x, state, reverse=False)
  tangents = linear_maps.apply(
      functools.partial(_tangents, parallel),
      functools.partial(_backward, parallel),
      (a, h, state),
      tangents,
  )
  return (h, h[:, -1]), tangents


def _tangents(parallel, residuals, tangents):
  """A recurrence with the same factors."""
  a, h, state = residuals
  d_a, d_x, d_state = tangents
  before = jnp.concatenate([state[:, None], h[:, :-1]], axis=1)
  d_h = _run(parallel, a, d_x + d_a * before, d_state, reverse=False)
  return d_h, d_h[:, -1]


def _backward(parallel, residuals, cotangents):
  a, h, state = residuals
  d_h, d_last = cotangents
  # What h[t] adds to h[t+1]; past the end stands the last state.
  later = jnp.concatenate([a[:, 1:], jnp.ones_like(a[:, :1])], axis=1)
  d_x = _run(parallel, later, d_h, d_last, reverse=True)
  before = jnp.concatenate([state[:, None], h[:, :-1]], axis=1)
  return d_x * before, d_x, a[:, 0] * d_x[:, 0]


def rg_lru_coefficients(
    recurrence_gate: Float[Array, 'B T D'],
    rate: Float[Array, 'D'],
    first: Bool[Array, 'B T'],
    sharpness: float = 8.0,
) -> tuple[Float[Array, 'B T D'], Float[Array, 'B T D']]:
  """RG-LRU's factor a and the gain of its input (2402.19427, eq. 3 and 4).

  log a = -sharpness gate softplus(rate), and the gain is sqrt(1 - a^2), by
  expm1 since a is near 1. Its slope is unbounded at a = 1; it is held where
  RecurrentGemma's code holds it, at a square root's slope of 1000. As in that
  code the first input of a row has a gain of 1, since no state is mixed in.

  Args:
    recurrence_gate: r in (0, 1).
    rate: the parameter Lambda, negated in the paper's sigmoid.
    first: the first position of a row.
    sharpness: the constant c.

  Returns:
    (a, gain).
  """
  log_a = -sharpness * recurrence_gate * jax.nn.softplus(rate)
  gain = jnp.where(first[..., None], 1.0, _gain(log_a))
  return jnp.exp(log_a), gain


@jax.custom_jvp
def _gain(log_a):
  """sqrt(1 - exp(2 log_a))."""
  return jnp.sqrt(-jnp.expm1(2 * log_a))


@_gain.defjvp
def _gain_slope(primals, tangents):
  (log_a,), (tangent,) = primals, tangents
  gain = _gain(log_a)
  slope = -jnp.exp(2 * log_a) / jnp.maximum(gain, 0.5 / _STEEPEST)
  return gain, slope * tangent
