"""Attention as pure functions: masks, rotary positions, scaled dot products.

Keys that are not valid may hold anything, NaN included: they reach no output.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Kind = Literal['causal', 'bidirectional', 'block_causal']


@dataclasses.dataclass(frozen=True)
class Mask:
  """Which positions a query sees; static, so that it can be a jit argument.

  Attributes:
    kind: causal sees positions up to its own; bidirectional sees all;
      block_causal sees all up to the end of its own block.
    window: if set, only keys nearer than this many positions are seen (behind
      the query; bidirectional masks bound both sides).
    block: block length of block_causal.
  """

  kind: Kind = 'causal'
  window: int | None = None
  block: int = 1

  def __call__(
      self, queries: Int[Array, 'B N'], keys: Int[Array, 'B S']
  ) -> Bool[Array, 'B N S']:
    """True where a query at one position sees a key at another."""
    query, key = queries[..., :, None], keys[..., None, :]
    if self.kind == 'causal':
      seen = key <= query
    elif self.kind == 'block_causal':
      seen = key // self.block <= query // self.block
    else:
      seen = jnp.ones(jnp.broadcast_shapes(query.shape, key.shape), bool)
    if self.window is not None:
      seen &= query - key < self.window
      if self.kind == 'bidirectional':
        seen &= key - query < self.window
    return seen


CAUSAL = Mask()


def rotary(
    positions: Int[Array, 'B N'], features: int, theta: float
) -> tuple[Float[Array, 'B N 1 h'], Float[Array, 'B N 1 h']]:
  """Cosines and sines for `rotate` (RoFormer, 2104.09864, eq. 15), fp32.

  Raises:
    ValueError: if `features`, the width of a head, is odd.
  """
  if features % 2:
    raise ValueError(f'rotary positions need an even head width: {features}')
  half = jnp.arange(features // 2, dtype=jnp.float32)
  frequencies = theta ** (-2.0 * half / features)
  angles = positions[..., None, None].astype(jnp.float32) * frequencies
  return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, 'B N H D'],
    rotation: tuple[Float[Array, 'B N 1 h'], Float[Array, 'B N 1 h']],
) -> Float[Array, 'B N H D']:
  """Rotates pairs (x[i], x[i + D / 2]) by the position's angles."""
  cos, sin = rotation
  left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
      [left * cos - right * sin, right * cos + left * sin], axis=-1
  )
  return rotated.astype(x.dtype)


def attend(
    q: Float[Array, 'B N H D'],
    k: Float[Array, 'B S J D'],
    v: Float[Array, 'B S J D'],
    seen: Bool[Array, 'B N S'],
    valid: Bool[Array, 'B S'],
) -> Float[Array, 'B N H D']:
  """Scaled dot-product attention with grouped queries; the softmax is fp32.

  Args:
    q: queries; head h reads key head h // (H / J) (GQA, 2305.13245).
    k: keys.
    v: values.
    seen: what each query may see, from a `Mask`.
    valid: keys that exist. Others may hold NaN.

  Returns:
    The attended values in q's dtype; zeros where a query sees nothing.
  """
  batch, queries, heads, features = q.shape
  groups = k.shape[2]
  exists = valid[:, :, None, None]
  k, v = jnp.where(exists, k, 0), jnp.where(exists, v, 0)
  # Heads lead, as matrix products want them.
  q = q.reshape(batch, queries, groups, heads // groups, features)
  q, k, v = jnp.moveaxis(q, 1, 3), jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
  scores = jnp.einsum(
      'bjrnd,bjsd->bjrns', q, k, preferred_element_type=jnp.float32
  )
  allowed = (seen & valid[:, None, :])[:, None, None]
  # A finite floor: inf - inf of a row without any key would be NaN.
  low = jnp.finfo(jnp.float32).min
  scores = jnp.where(allowed, scores * features**-0.5, low)
  # `initial` also serves a sequence of no keys at all.
  most = jnp.max(scores, axis=-1, keepdims=True, initial=low)
  most = jax.lax.stop_gradient(most)
  weights = jnp.where(allowed, jnp.exp(scores - most), 0)
  # Divided by at the end, where there is less to divide.
  total = jnp.sum(weights, axis=-1, keepdims=True)
  y = jnp.einsum(
      'bjrns,bjsd->bjrnd',
      weights.astype(v.dtype),
      v,
      preferred_element_type=jnp.float32,
  )
  y = jnp.moveaxis(y / jnp.where(total > 0, total, 1), 3, 1)
  return y.astype(v.dtype).reshape(batch, queries, heads, features)


def write_cache(
    cache: Float[Array, 'B S J D'],
    new: Float[Array, 'B n J D'],
    position: Int[Array, 'B'],
) -> Float[Array, 'B S J D']:
  """Writes each row's n new keys (or values) from its own position on.

  The caller keeps position + n <= S: XLA would shift a later write back.
  """

  def row(cache, new, position):
    return jax.lax.dynamic_update_slice_in_dim(cache, new, position, axis=0)

  return jax.vmap(row)(cache, new.astype(cache.dtype), position)
