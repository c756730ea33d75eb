"""What models of every kind say of the rows of a batch."""

import math

from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax.decoders import scores as scores_lib


def bits(
    log_prob: Float[Array, 'B N K'], counts: Int[np.ndarray, 'B']
) -> Float[np.ndarray, 'B']:
  """Bits for each of a row's `counts` frames (or samples); NaN for none."""
  total = scores_lib.bits(-np.asarray(log_prob).sum(axis=(1, 2)))
  none = np.full_like(total, np.nan)
  return np.divide(total, counts, out=none, where=counts > 0)


def duration(seconds: float, rate: float | None) -> int:
  """How many frames (or samples) last `seconds`, at `rate` of them a second.

  Raises:
    ValueError: if it is negative or not finite, or there is no rate.
  """
  if rate is None:
    raise ValueError('the model has no frame rate: its frames are no time')
  if not 0 <= seconds < math.inf:
    raise ValueError(f'seconds = {seconds}: expected a finite number >= 0')
  return round(seconds * rate)


def lengths(
    given: Int[Array, 'B'] | None, shape: tuple[int, ...], name: str
) -> Int[np.ndarray, 'B']:
  """Checked lengths of the rows of an array [B, N, ...]; N for None.

  Raises:
    ValueError: if they are not one a row, or out of range.
  """
  if given is None:
    given = np.full(shape[0], shape[1])
  given = np.asarray(given)
  if given.size and given.dtype.kind not in 'iu':
    raise ValueError(f'lengths are {given.dtype}: expected integers')
  given = given.astype(np.int32)
  if given.shape != shape[:1]:
    raise ValueError(f'lengths {given.shape} for {name} {shape}')
  if given.size and not 0 <= given.min() <= given.max() <= shape[1]:
    raise ValueError(f'lengths {given} are not within {shape[1]}')
  return given
