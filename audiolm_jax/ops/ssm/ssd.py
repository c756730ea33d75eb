"""Mamba-2's state space model: state space duality (2405.21060).

For each head, with a state S [P, N] (listing 1, section 6):

  S[t] = exp(dt[t] a) S[t-1] + dt[t] x[t] b[t]^T,   y[t] = S[t] c[t].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def ssd(
    x: Float[Array, 'B T H P'],
    dt: Float[Array, 'B T H'],
    a: Float[Array, 'H'],
    b: Float[Array, 'B T G N'],
    c: Float[Array, 'B T G N'],
    state: Float[Array, 'B H P N'],
    chunk: int,
) -> tuple[Float[Array, 'B T H P'], Float[Array, 'B H P N']]:
  """The whole sequence by matrix products within chunks, states between them.

  dt = 0 leaves the state untouched: so masked positions are passed. One
  position is one step of the recurrence.

  Args:
    x: inputs, in the dtype of the matrix products.
    dt: step sizes >= 0, float32.
    a: negative rates, float32.
    b: from input to state; head h uses group h G // H.
    c: from state to output; head h uses group h G // H.
    state: before the first position, float32.
    chunk: positions of a chunk, at most.

  Returns:
    (y in x's dtype, the state after the last position).
  """
  if x.shape[1] == 1:
    now = (x[:, 0], dt[:, 0], a, b[:, 0], c[:, 0], state)
    y, state = ssd_step(*now)
    return y[:, None], state
  batch, time, heads, width = x.shape
  groups, size = b.shape[2:]
  dtype, shared = x.dtype, heads // groups
  # As few chunks as may be, then as short ones: a little padding only.
  count = -(-time // chunk)
  chunk = -(-time // count)

  def chunks(value, heads, *trailing):
    return _chunks(value, count, chunk, groups, heads, *trailing)

  dt = chunks(dt, shared)
  b, c = (chunks(v, 1, size)[:, 0] for v in (b, c))
  x = chunks(x, shared, width) * dt[..., None].astype(dtype)
  rates = jnp.tile(a.reshape(groups, shared, 1), (batch * count, 1, 1))
  total, within = segment_sums(dt * rates)
  # Within a chunk: attention whose weights decay with distance.
  scores = _product('xin,xjn->xij', c, b)[:, None]
  scores = (scores * jnp.exp(within)).astype(dtype)
  y = _product('xrij,xrjp->xrip', scores, x)
  # What each chunk adds to the state at its end.
  rest = jnp.exp(within[..., -1, :])[..., None]
  added = _product('xrjp,xjn->xrpn', (x * rest).astype(dtype), b)
  before, last = _carry(state, added, total[..., -1], count)
  # What the state at a chunk's start adds to its outputs.
  before = before.astype(dtype)
  y += _product('xin,xrpn->xrip', c, before) * jnp.exp(total)[..., None]
  y = y.reshape(batch, count, groups, shared, chunk, width)
  y = jnp.moveaxis(y, 4, 2).reshape(batch, -1, heads, width)
  return y[:, :time].astype(dtype), last.reshape(state.shape)


def _chunks(value, count, chunk, groups, heads, *trailing):
  """[B T G heads ...] as [B L G, heads, Q, ...] for L chunks of Q.

  With six axes instead of four, XLA's fusions on CPUs take ten times as long.
  """
  batch, time = value.shape[:2]
  pad = [(0, 0)] * value.ndim
  pad[1] = (0, count * chunk - time)
  value = jnp.pad(value, pad)
  value = value.reshape(batch, count, chunk, groups, heads, *trailing)
  return jnp.moveaxis(value, 2, 4).reshape(-1, heads, chunk, *trailing)


def _product(subscripts, left, right):
  return jnp.einsum(subscripts, left, right, preferred_element_type=jnp.float32)


def _carry(state, added, rates, count):
  """The states before each chunk, as `added`, and the one after all, flat.

  Args:
    state: before the first chunk.
    added: what each chunk adds.
    rates: logarithms of what is left of a state at a chunk's end.
    count: of chunks.
  """
  batch, heads = state.shape[:2]

  def carry(state, now):
    added, decay = now
    return decay[..., None] * state + added, state

  def chunks_first(value):
    return jnp.moveaxis(value.reshape(batch, count, heads, -1), 1, 0)

  whole = chunks_first(jnp.exp(rates))[..., 0]
  # Unrolled: a loop's copies of the states cost more than the rest of it.
  last, before = jax.lax.scan(
      carry,
      state.reshape(batch, heads, -1),
      (chunks_first(added), whole),
      unroll=min(count, 8),
  )
  return jnp.moveaxis(before, 0, 1).reshape(added.shape), last


def ssd_step(
    x: Float[Array, 'B H P'],
    dt: Float[Array, 'B H'],
    a: Float[Array, 'H'],
    b: Float[Array, 'B G N'],
    c: Float[Array, 'B G N'],
    state: Float[Array, 'B H P N'],
) -> tuple[Float[Array, 'B H P'], Float[Array, 'B H P N']]:
  """One position of `ssd`: (y, state)."""
  shared = x.shape[1] // b.shape[1]
  # Heads of a group side by side, as in `ssd`.
  b, c = (jnp.repeat(v.astype(jnp.float32), shared, axis=1) for v in (b, c))
  decay = jnp.exp(dt * a)[..., None, None]
  inputs = (x * dt[..., None])[..., None] * b[:, :, None]
  state = decay * state + inputs
  y = jnp.einsum('bhpn,bhn->bhp', state, c)
  return y.astype(x.dtype), state


def segment_sums(
    x: Float[Array, '*B Q'],
) -> tuple[Float[Array, '*B Q'], Float[Array, '*B Q Q']]:
  """Running sums, and the sums of x[j + 1 .. i] for all i >= j.

  The latter, as differences of the former, would cancel where a state is wiped
  out and then kept for long. So the rounding errors of the running sums are
  summed up beside them.

  Returns:
    (sums of x[.. i], [..., i, j] sums of x[j + 1 .. i], -inf for i < j).
  """
  size = x.shape[-1]
  causal = jnp.tril(jnp.ones((size, size), bool))

  def running(x):
    # A product: XLA would form jnp.cumsum anew for each pair of positions.
    ones = causal.astype(x.dtype)
    return jnp.einsum(
        '...j,ij->...i', x, ones, precision=jax.lax.Precision.HIGHEST
    )

  def differences(sums):
    return sums[..., :, None] - sums[..., None, :]

  total = running(x)
  start = jnp.concatenate([jnp.zeros_like(x[..., :1]), total[..., :-1]], -1)
  error = running(jax.lax.stop_gradient(x - (total - start)))
  between = differences(total) + differences(error)
  return total, jnp.where(causal, between, -jnp.inf)
