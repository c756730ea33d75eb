"""Attention as pure functions: masks, softmax over several sets of keys, rings.

Keys lead with their heads, [B J S D], as matrix products want them: a step
then reads a cache where it lies.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.ops import sharding

Kind = Literal['causal', 'bidirectional', 'block_causal']
# Queries taken at a time where each sees the whole row.
_CHUNK = 1024


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
    # Compared where they are used: of known positions, numpy would make a
    # constant as large as the scores.
    query = jnp.asarray(queries)[..., :, None]
    key = jnp.asarray(keys)[..., None, :]
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


class Part(NamedTuple):
  """Queries, and some of the keys that they see.

  Attributes:
    q: queries. They may differ between parts, as when some keys are seen from
      another distance.
    k: keys, finite.
    v: values, finite.
    allowed: what each query sees; its first axis may be 1.
  """

  q: Float[Array, 'B N H D']
  k: Float[Array, 'B J S D']
  v: Float[Array, 'B J S D']
  allowed: Bool[Array, 'B N S']


class Keys(NamedTuple):
  """Keys and where they stand.

  Attributes:
    k: keys, finite.
    v: values, finite.
    positions: of the keys; the first axis may be 1, as in `exists`.
    exists: whether they may be seen at all.
  """

  k: Float[Array, 'B J S D']
  v: Float[Array, 'B J S D']
  positions: Int[Array, 'B S']
  exists: Bool[Array, 'B S']


def attend_parts(
    parts: Sequence[Part],
    sinks: Float[Array, 'H'] | None = None,
    scale: float | None = None,
) -> Float[Array, 'B N H D']:
  """Attention with one fp32 softmax over the keys of all parts.

  Args:
    parts: head h of a part's queries reads key head h // (H / J) (GQA,
      2305.13245).
    sinks: a further logit for each head, which takes its share of the softmax
      and adds nothing (gpt-oss).
    scale: of the products of queries and keys; None for D**-.5.

  Returns:
    The attended values in their dtype; zeros where a query sees nothing.
  """
  batch, queries, heads, features = parts[0].q.shape
  groups = parts[0].k.shape[1]
  shared = heads // groups
  scale = features**-0.5 if scale is None else scale
  # A finite floor: inf - inf of a row without any key would be NaN.
  low = jnp.finfo(jnp.float32).min
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = []
  for part in parts:
    # Heads that share keys as rows of one product. Queries are scaled, of which
    # there are fewer numbers than of scores.
    q = jnp.moveaxis(part.q, 1, 2) * jnp.asarray(scale, part.q.dtype)
    q = q.reshape(batch, groups, shared * queries, features)
    score = product('bjnd,bjsd->bjns', q, part.k)
    by_head = score.reshape(batch, groups, shared, queries, score.shape[-1])
    by_head = jnp.where(part.allowed[:, None, None], by_head, low)
    scores.append(by_head.reshape(score.shape))
  # `initial` also serves a sequence of no keys at all. It is above the floor,
  # so that weights of what is not seen are 0 in every row.
  most = [jnp.max(s, axis=-1, keepdims=True, initial=low / 2) for s in scores]
  if sinks is not None:
    sinks = sinks.astype(jnp.float32).reshape(groups, shared, 1)
    sinks = jnp.repeat(sinks, queries, axis=1)
    most.append(jnp.broadcast_to(sinks, most[0].shape))
  most = jax.lax.stop_gradient(jnp.stack(most).max(axis=0))
  total = 0.0 if sinks is None else jnp.exp(sinks - most)
  y = 0.0
  for part, score in zip(parts, scores, strict=True):
    weights = jnp.exp(score - most)
    total += jnp.sum(weights, axis=-1, keepdims=True)
    y += product('bjns,bjsd->bjnd', weights.astype(part.v.dtype), part.v)
  # Divided by at the end, where there is less to divide.
  y = (y / jnp.where(total > 0, total, 1)).astype(parts[0].v.dtype)
  return jnp.moveaxis(y.reshape(batch, heads, queries, features), 1, 2)


def attend(
    q: Float[Array, 'B N H D'],
    k: Float[Array, 'B S J D'],
    v: Float[Array, 'B S J D'],
    seen: Bool[Array, 'B N S'],
    valid: Bool[Array, 'B S'],
) -> Float[Array, 'B N H D']:
  """`attend_parts` with one set of keys that may hold anything if not valid.

  Args:
    q: queries.
    k: keys.
    v: values.
    seen: what each query may see, from a `Mask`.
    valid: keys that exist. Others may hold NaN: they reach no output.
  """
  exists = valid[:, :, None, None]
  k, v = (heads_first(jnp.where(exists, a, 0)) for a in (k, v))
  return attend_parts([Part(q, k, v, seen & valid[:, None, :])])


def heads_first(x: Float[Array, 'B S J D']) -> Float[Array, 'B J S D']:
  """Keys as `attend_parts` takes them."""
  return jnp.swapaxes(x, 1, 2)


def attend_keys(
    q: Float[Array, 'B N H D'],
    positions: Int[Array, 'B N'],
    sets: Sequence[Keys],
    mask: Mask,
    kept: tuple[Float[Array, 'B N H D'], Keys] | None = None,
    sinks: Float[Array, 'H'] | None = None,
    scale: float | None = None,
    within: Int[Array, 'B'] | None = None,
) -> Float[Array, 'B N H D']:
  """Attention by position, in memory linear in the number of queries.

  Args:
    q: queries.
    positions: theirs, without gaps; the first axis may be 1.
    sets: keys, in order of position. The last set begins at the position of the
      first query.
    mask: what is seen of them.
    kept: further keys, seen from any distance, and the queries that they are
      seen with.
    sinks: see `attend_parts`, as scale.
    scale: of the products of queries and keys; None for D**-.5.
    within: a window of each row, on both sides of its queries; None for none.
  """
  length = q.shape[1]
  behind = mask.window is not None and mask.kind == 'causal'
  size = mask.window if behind else _CHUNK
  if length > 2 * size:
    return _attend_chunks(
        q, positions, sets, mask, kept, sinks, scale, size, within
    )
  runs, alone = 1, len(sets) == 1 and sets[0].k.shape[2] == length
  whole = alone and kept is None and within is None
  if mask == CAUSAL and whole and sharding.platform() == 'cpu':
    runs = min(4, length // 128)
  if runs < 2:
    parts = _parts(q, positions, sets, mask, kept, within)
    return attend_parts(parts, sinks, scale)
  # Causal within a sequence: each run of queries with the keys until its end. A
  # third less time from 512 positions on, gradients included.
  size, outputs = -(-length // runs), []
  for start in range(0, length, size):
    now = slice(start, start + size)
    seen = _until(sets[0], start + size)
    parts = _parts(q[:, now], positions[:, now], [seen], mask)
    outputs.append(attend_parts(parts, sinks, scale))
  return jnp.concatenate(outputs, axis=1)


def _parts(q, positions, sets, mask, kept=None, within=None):
  """Queries with each set of keys, and with those that are kept."""

  def allowed(keys):
    seen = mask(positions, keys.positions) & keys.exists[:, None, :]
    if within is None:
      return seen
    apart = positions[..., :, None] - keys.positions[..., None, :]
    return seen & (jnp.abs(apart) < within[:, None, None])

  parts = [Part(q, s.k, s.v, allowed(s)) for s in sets]
  if kept is not None:
    q, keys = kept
    always = dataclasses.replace(mask, window=None)
    seen = always(positions, keys.positions) & keys.exists[:, None, :]
    parts.append(Part(q, keys.k, keys.v, seen))
  return parts


def _attend_chunks(q, positions, sets, mask, kept, sinks, scale, size, within):
  """`attend_keys`, `size` queries at a time."""
  length = q.shape[1]
  behind = mask.window is not None and mask.kind == 'causal'
  # A window reaches back into the chunk before, which may be of another set.
  before = sum(s.k.shape[2] for s in sets[:-1])
  ahead = max(size - before, 0) if behind else 0
  after = -length % size

  def join(axis, *parts):
    rows = max(a.shape[0] for a in parts)
    parts = [jnp.broadcast_to(a, (rows, *a.shape[1:])) for a in parts]
    return _pad(jnp.concatenate(parts, axis), axis, ahead, after)

  keys = _each(join, *sets)
  q, positions = _pad(q, 1, 0, after), _pad(positions, 1, 0, after)
  q_kept = None if kept is None else _pad(kept[0], 1, 0, after)
  span = 2 * size if behind else keys.k.shape[2]
  first = before + ahead - size if behind else 0

  @jax.checkpoint
  def chunk(start):
    def queries(x):
      return jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)

    def seen(axis, x):
      if not behind:
        return x
      return jax.lax.dynamic_slice_in_dim(x, first + start, span, axis=axis)

    near = [_each(seen, keys)]
    here = None if kept is None else (queries(q_kept), kept[1])
    parts = _parts(queries(q), queries(positions), near, mask, here, within)
    return attend_parts(parts, sinks, scale)

  y = jax.lax.map(chunk, jnp.arange(0, length + after, size))
  y = jnp.moveaxis(y, 0, 1).reshape(q.shape)
  return y[:, :length]


def _each(function, *sets):
  """Keys of `function(axis of positions, *arrays)`, field by field."""
  fields = zip((2, 2, 1, 1), *sets, strict=True)
  return Keys(*(function(axis, *arrays) for axis, *arrays in fields))


def _until(keys, stop):
  """The first `stop` keys."""
  return _each(lambda axis, x: x[(slice(None),) * axis + (slice(stop),)], keys)


def _pad(x, axis, before, after):
  """Zeros (False) at both ends of an axis."""
  widths = [(0, 0)] * x.ndim
  widths[axis] = (before, after)
  return jnp.pad(x, widths)


def ring_positions(count: Int[Array, 'B'], slots: int) -> Int[Array, 'B S']:
  """The position that each slot of a ring holds after `count` positions.

  Position p lies in slot p % slots. Below 0: the slot is still empty.
  """
  last = count[:, None] - 1
  return last - (last - jnp.arange(slots)) % slots


def write_ring(
    ring: Float[Array, 'B J S D'],
    new: Float[Array, 'B N J D'],
    positions: Int[Array, 'B N'],
    written: Bool[Array, 'B N'],
) -> Float[Array, 'B J S D']:
  """Each row's new keys (or values) in their slots.

  Args:
    ring: of S slots.
    new: what to write.
    positions: theirs; position p goes to slot p % S.
    written: others are dropped. No two of a row may share a slot.
  """
  slots = ring.shape[2]
  # Out of bounds, where writes are dropped.
  index = jnp.where(written, positions % slots, slots)
  if index.size == 1:
    # A single write becomes a slice that XLA's CPU backend fuses with each of
    # its readers, after four copies of the ring. Of two equal ones it makes
    # none.
    index, new = jnp.tile(index, (1, 2)), jnp.repeat(new, 2, axis=1)
  rows = jnp.arange(ring.shape[0])[:, None]
  return ring.at[rows, :, index].set(new.astype(ring.dtype), mode='drop')


def extend_ring(
    state: Mapping[str, Array],
    k: Float[Array, 'B N J D'],
    v: Float[Array, 'B N J D'],
    positions: Int[Array, 'B N'],
    mask: Bool[Array, 'B N'],
    first: int = 0,
) -> tuple[dict[str, Array], list[Keys]]:
  """The next positions of a ring, and the keys that they see.

  Args:
    state: `keys` and `values` [B, J, S, D], and `position` [B], how many
      positions there have been.
    k: keys of the next N positions.
    v: their values.
    positions: from `position` on.
    mask: which of them exist: prefixes of the rows.
    first: positions before this are not for the ring.

  Returns:
    The state after them, and sets for `attend_keys` with a window of S.
  """
  slots = state['keys'].shape[2]
  start = state['position']
  end = start + jnp.sum(mask, axis=1, dtype=jnp.int32)
  here = mask & (positions >= jnp.maximum(end - slots, first)[:, None])
  after = {
      name: write_ring(state[name], new, positions - first, here)
      for name, new in (('keys', k), ('values', v))
  }
  after['position'] = end

  def keys_of(state, count):
    held = ring_positions(count - first, slots)
    return Keys(state['keys'], state['values'], held + first, held >= 0)

  if k.shape[1] == 1:
    # What the new key took the place of is out of sight.
    return after, [keys_of(after, end)]
  exists = mask & (positions >= first)
  new = Keys(heads_first(k), heads_first(v), positions, exists)
  return after, [keys_of(state, start), new]
