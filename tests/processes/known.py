"""Processes of data whose denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax.processes import gaussian

COSINE = gaussian.Cosine()
FLOW = gaussian.RectifiedFlow()
VP = gaussian.VariancePreserving()


def normal(process, target, mean=0.0, std=1.0):
  """The denoiser of N(mean, std^2), each entry by itself."""

  def predict(z, t):
    a, b = gaussian.over(process.scales(t), z)
    residual = (z - a * mean) / (a**2 * std**2 + b**2)
    x, e = mean + a * std**2 * residual, b * residual
    return process.target(target, x, e, t)

  return gaussian.Denoiser(process, target, predict)


def mixture(process, target, means, std):
  """The denoiser of equally likely normal clouds, means [M, D], one std."""

  def predict(z, t):
    a, b = gaussian.over(process.scales(t), z)
    variance = a**2 * std**2 + b**2
    residual = (z[..., None, :] - a[..., None] * means) / variance[..., None]
    distance = jnp.sum(residual**2, -1) * variance
    share = jax.nn.softmax(-distance / 2, axis=-1)[..., None]
    x = jnp.sum(share * (means + a[..., None] * std**2 * residual), -2)
    e = jnp.sum(share * b[..., None] * residual, -2)
    return process.target(target, x, e, t)

  return gaussian.Denoiser(process, target, predict)


def ones(*shape):
  return jnp.ones(shape, jnp.float32)


def flow_map(z, start, end, mean=0.0, std=1.0):
  """Where rectified flow takes z of N(mean, std^2), from a time to another."""

  def spread(t):
    return np.sqrt((1 - t) ** 2 * std**2 + t**2)

  ratio = spread(end) / spread(start)
  return (1 - end) * mean + ratio * (z - (1 - start) * mean)


def mean_velocity(mean=0.0, std=1.0):
  """The map of rectified flow of N(mean, std^2), as `flow_maps` takes it.

  It is `flow_map`'s (X - z) / (s - t) with the quotient carried out, so that it
  has all derivatives at s = t.
  """

  def spread(t):
    return jnp.sqrt((1 - t) ** 2 * std**2 + t**2)

  def u(z, t, s):
    slope = (s + t - (2 - s - t) * std**2) / (
        spread(t) * (spread(s) + spread(t))
    )
    slope, a = gaussian.over((slope, 1 - t), z)
    return slope * (z - a * mean) - mean

  return u
