"""The loss by noise level on fixed draws: its curve falls, or training is done.

A training loss is of random times and noise, whose spread hides what a model
still learns. Here each clip has its own times and noise, the same at every
evaluation, in every batch and beside every neighbour.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
import numpy as np

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib


def levels(count: int) -> np.ndarray:
  """The middles of `count` equal parts of (0, 1): times from data to noise."""
  return (np.arange(count) + 0.5) / count


def errors(
    denoiser: gaussian.Denoiser,
    x: Float[Array, 'B N D'],
    mask: Bool[Array, 'B N'],
    keys: Key[Array, 'B'],
    times: np.ndarray,
) -> Float[Array, 'B L']:
  """Squared errors of the prediction, summed over valid frames, mean over D.

  Divide sums over clips by sums of `mask`.

  Args:
    denoiser: whose prediction, of the target that it names.
    x: data. Where masked it may hold anything.
    mask: valid frames.
    keys: of the clips, from their ids: `noise.row_keys`.
    times: L of them: `levels`.
  """
  x = jnp.where(mask[..., None], x, 0)
  process = denoiser.process

  def at(level):
    index, t = level
    noise = noise_lib.normal(noise_lib.fold(keys, index), x.shape[1:])
    e = jnp.where(mask[..., None], noise.astype(x.dtype), 0)
    t = jnp.full(len(x), t, x.dtype)
    output = denoiser.predict(process.corrupt(x, e, t), t)
    error = jnp.mean(
        (output - process.target(denoiser.target, x, e, t)) ** 2, -1
    )
    return jnp.sum(jnp.where(mask, error, 0), axis=1)

  times = jnp.asarray(times, x.dtype)
  return jax.lax.map(at, (jnp.arange(len(times)), times)).T
