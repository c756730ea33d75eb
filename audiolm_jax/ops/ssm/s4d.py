"""S4D: a diagonal state space model for each channel (2206.11893).

With complex states s [N] of each channel, the input matrix B = 1, and A the
diagonal of the state matrix, discretised by zero-order hold:

  s[t] = exp(dt A) s[t-1] + x[t],   y[t] = 2 Re(sum_n w_n s_n[t]),
  w = C (exp(dt A) - 1) / A.
"""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int
from scipy import fft

from audiolm_jax.ops import sharding
from audiolm_jax.ops.ssm import linear_recurrence


class Discrete(flax.struct.PyTreeNode):
  """A discretised model.

  Attributes:
    log_a: dt A, the logarithm of what a state keeps in one step.
    w: from states to outputs.
  """

  log_a: Complex[Array, 'D N']
  w: Complex[Array, 'D N']


def discretise(
    log_dt: Float[Array, 'D'],
    log_decay: Float[Array, 'D N'],
    frequency: Float[Array, 'D N'],
    c: Complex[Array, 'D N'],
) -> Discrete:
  """Zero-order hold of A = -exp(log_decay) + i frequency, with B = 1."""
  a = jax.lax.complex(-jnp.exp(log_decay), frequency)
  log_a = a * jnp.exp(log_dt)[:, None]
  # expm1 of a complex number: exp(dt A) is near 1.
  real, imaginary = log_a.real, log_a.imag
  half = jnp.sin(imaginary / 2)
  grown = jax.lax.complex(
      jnp.expm1(real) * jnp.cos(imaginary) - 2 * half * half,
      jnp.exp(real) * jnp.sin(imaginary),
  )
  return Discrete(log_a, c * grown / a)


def kernel(model: Discrete, size: int) -> Float[Array, 'D T']:
  """The impulse response at `size` positions.

  The Vandermonde matrix of t = i Q + j is a product of those of i Q and j: its
  exponentials are 2 sqrt(T) a state, the rest is a matrix product.
  """
  rows = max(1, int(size**0.5))
  columns = -(-size // rows)
  left = model.w[..., None] * _powers(model, columns * jnp.arange(rows))
  right = _powers(model, jnp.arange(columns))
  # The real part only.
  product = jnp.einsum('dni,dnj->dij', left.real, right.real)
  product -= jnp.einsum('dni,dnj->dij', left.imag, right.imag)
  return 2 * product.reshape(product.shape[0], rows * columns)[:, :size]


def convolve(
    model: Discrete,
    x: Float[Array, 'B T D'],
    lengths: Int[Array, 'B'],
    state: Complex[Array, 'B D N'] | None = None,
) -> tuple[Float[Array, 'B T D'], Complex[Array, 'B D N']]:
  """The whole sequence by Fourier transforms.

  Args:
    model: of D channels.
    x: inputs, zero past each row's length.
    lengths: positions of each row that count.
    state: before the first position; None for zeros, which cost nothing.

  Returns:
    (outputs, the state after each row's last position).
  """
  time = x.shape[1]
  # Long enough that the end does not come around to the start.
  size = fft.next_fast_len(2 * time - 1, real=True)
  response = jnp.fft.rfft(kernel(model, time), size)

  def convolve(u):
    return jnp.fft.irfft(jnp.fft.rfft(u, size) * response, size)[..., :time]

  y = sharding.by_rows(convolve, jnp.swapaxes(x, 1, 2))
  if state is not None:
    y += _decayed(model, state, time)
  return jnp.swapaxes(y, 1, 2), _final(model, x, lengths, state)


def scan(
    model: Discrete,
    x: Float[Array, 'B T D'],
    lengths: Int[Array, 'B'],
    state: Complex[Array, 'B D N'] | None = None,
) -> tuple[Float[Array, 'B T D'], Complex[Array, 'B D N']]:
  """`convolve` by the recurrence: B T D N numbers, not D N sqrt(T)."""
  valid = jnp.arange(x.shape[1]) < lengths[:, None]
  a = jnp.where(valid[..., None, None], jnp.exp(model.log_a), 1)
  inputs = jnp.broadcast_to(x[..., None], a.shape).astype(a.dtype)
  if state is None:
    state = jnp.zeros_like(inputs[:, 0])
  states, state = linear_recurrence.linear_recurrence(a, inputs, state)
  return _read(model, states), state


def step(
    model: Discrete,
    x: Float[Array, 'B D'],
    state: Complex[Array, 'B D N'],
) -> tuple[Float[Array, 'B D'], Complex[Array, 'B D N']]:
  """One position: (output, state)."""
  state = jnp.exp(model.log_a) * state + x[..., None]
  return _read(model, state), state


def _read(model, state):
  return 2 * jnp.sum((model.w * state).real, axis=-1)


def _powers(model, exponents):
  """exp(dt A k) [D, N, K]."""
  return jnp.exp(model.log_a[..., None] * exponents)


def _decayed(model, state, time):
  """[B, D, T]: what a state adds to the outputs after it."""
  rows = max(1, int(time**0.5))
  columns = -(-time // rows)
  left = _powers(model, columns * jnp.arange(rows))
  left *= (model.w * jnp.exp(model.log_a))[..., None]
  left = left * state[..., None]
  right = _powers(model, jnp.arange(columns))
  product = jnp.einsum('bdni,dnj->bdij', left.real, right.real)
  product -= jnp.einsum('bdni,dnj->bdij', left.imag, right.imag)
  return 2 * product.reshape(*product.shape[:2], -1)[..., :time]


def _final(model, x, lengths, state):
  """The state after each row's last position."""
  batch, time, channels = x.shape
  rows = max(1, int(time**0.5))
  columns = -(-time // rows)
  # Rows end together, with zeros before them: one matrix serves all.
  source = jnp.arange(rows * columns) - rows * columns + lengths[:, None]
  ended = jnp.take_along_axis(x, jnp.maximum(source, 0)[..., None], axis=1)
  ended = jnp.where(source[..., None] >= 0, ended, 0)
  ended = ended.reshape(batch, rows, columns, channels)
  inner = _powers(model, jnp.arange(columns)[::-1])
  outer = _powers(model, columns * jnp.arange(rows)[::-1])
  total = jax.lax.complex(
      jnp.einsum('bijd,dnj->bdni', ended, inner.real),
      jnp.einsum('bijd,dnj->bdni', ended, inner.imag),
  )
  total = jnp.sum(total * outer, axis=-1)
  if state is None:
    return total
  kept = jnp.exp(model.log_a * lengths[:, None, None])
  return total + kept * state
