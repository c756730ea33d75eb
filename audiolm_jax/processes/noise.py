"""Noise that goes by the row's key and the absolute frame, and by nothing else.

So a row alone equals the row in a batch, padding changes no valid frame, and a
chunk that starts at frame f has the noise which the whole has from f on.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def row_keys(rng: Key[Array, ''], rows: Int[Array, 'B']) -> Key[Array, 'B']:
  """A key for each row.

  Args:
    rng: of all.
    rows: what tells rows apart wherever they stand: their numbers, or ids.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.asarray(rows))


def frame_keys(
    keys: Key[Array, 'B'], count: int, start: Int[Array, 'B'] | int = 0
) -> Key[Array, 'B N']:
  """A key for each frame.

  Args:
    keys: of the rows.
    count: N.
    start: the absolute number of each row's first frame.
  """
  start = jnp.broadcast_to(start, keys.shape)
  frames = start[:, None] + jnp.arange(count)
  return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys, frames)


def fold(
    keys: Key[Array, 'B'], number: Int[Array, ''] | int
) -> Key[Array, 'B']:
  """The rows' keys for one of several uses: a step, a level, a kind of draw."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def draw(
    function: Callable[..., Array],
    keys: Key[Array, 'B'],
    shape: tuple[int, ...],
    start: Int[Array, 'B'] | int = 0,
) -> Array:
  """function(key, the rest of `shape`) of each frame: [N, *rest] of each row.

  Args:
    function: such as `jax.random.normal`.
    keys: of the rows.
    shape: (N, *rest).
    start: the absolute number of each row's first frame.
  """
  count, *rest = shape
  each = frame_keys(keys, count, start)
  return jax.vmap(jax.vmap(lambda key: function(key, tuple(rest))))(each)


def normal(
    keys: Key[Array, 'B'],
    shape: tuple[int, int],
    start: Int[Array, 'B'] | int = 0,
) -> Float[Array, 'B N D']:
  """Standard normal noise of frames. See `draw`."""
  return draw(jax.random.normal, keys, shape, start)
