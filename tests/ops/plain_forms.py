"""Recurrences step by step, for JAX to differentiate."""

import jax
import jax.numpy as jnp


def lstm(inputs, kernel, state, mask):
  """`ops.recurrence.lstm`: outputs of all steps, and the last state."""
  h, c = state
  outputs = []
  for z, valid in zip(inputs, mask[..., None], strict=True):
    i, f, g, o = jnp.split(z + h @ kernel, 4, axis=-1)
    new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    c = jnp.where(valid, new, c)
    h = jnp.where(valid, jax.nn.sigmoid(o) * jnp.tanh(new), h)
    outputs.append(h)
  return jnp.stack(outputs), (h, c)


def linear_recurrence(a, x, state):
  """h_t = a_t h_t-1 + x_t: all h [B, N, D], and the last one."""
  outputs = []
  for t in range(x.shape[1]):
    state = a[:, t] * state + x[:, t]
    outputs.append(state)
  return jnp.stack(outputs, axis=1), state
