"""Likelihoods of flows: what the velocity does to volumes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import times as times_lib


def with_divergence(
    function: Callable[[Array], Array], z: Float[Array, 'B N D']
) -> tuple[Float[Array, 'B N D'], Float[Array, 'B']]:
  """function(z) and its exact divergence: N D times `jax.jvp`.

  Args:
    function: of z, row by row.
    z: where.

  Returns:
    (values, for each row the sum over N and D of the derivatives of values by
    the same entry of z).
  """
  size = z.shape[1] * z.shape[2]

  def along(total, index):
    direction = jax.nn.one_hot(index, size, dtype=z.dtype).reshape(z.shape[1:])
    direction = jnp.broadcast_to(direction, z.shape)
    moved = jax.jvp(function, (z,), (direction,))[1]
    return total + jnp.sum(moved * direction, axis=(1, 2)), None

  total, _ = jax.lax.scan(along, jnp.zeros(len(z), z.dtype), jnp.arange(size))
  return function(z), total


def log_prob(
    denoiser: gaussian.Denoiser,
    x: Float[Array, 'B N D'],
    times: np.ndarray,
) -> Float[Array, 'B']:
  """log p(x) in nats, of the flow without noise (2011.13456, app. D.2).

  log N(z_1; 0, 1) plus the divergence of the velocity along the way from x, by
  Heun's steps: exact up to these. At D = 32 a step takes 64 times `jax.jvp`.

  Args:
    denoiser: whose flow. At the last time noise must be standard normal.
    x: data, all of it valid.
    times: rising from 0, or from a little above, to 1, on the host.

  Raises:
    ValueError: for times that do not rise or do not reach the noise, or where
      the prediction says too little: see `Gaussian.check`.
  """
  try:
    times = times_lib.falling(np.flip(times), start=1)[::-1]
  except ValueError as error:
    raise ValueError(f'{error}, in rising order') from error
  denoiser.process.check(denoiser.target, times, slopes=True)

  def velocity(z, t):
    every = jnp.full(len(z), t)
    return with_divergence(lambda z: denoiser.velocity(z, every), z)

  def step(carry, now):
    (z, total), (t, h) = carry, now
    first, grown = velocity(z, t)
    second, grown_after = velocity(z + h * first, t + h)
    z = z + h * (first + second) / 2
    return (z, total + h * (grown + grown_after) / 2), None

  steps = jnp.asarray(times[:-1], x.dtype), jnp.asarray(np.diff(times), x.dtype)
  start = x, jnp.zeros(len(x), x.dtype)
  (z, total), _ = jax.lax.scan(step, start, steps)
  return total + jnp.sum(jax.scipy.stats.norm.logpdf(z), axis=(1, 2))
