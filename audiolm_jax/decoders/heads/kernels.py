"""Linear classifiers, one for each slot."""

from collections.abc import Sequence
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.ops import weights
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.ops import sharding


@dataclasses.dataclass(frozen=True)
class Kernels:
  """The classifiers of some slots.

  Attributes:
    vocabularies: of all K slots.
    parts: slot -> its matrix, [D, V] or, if tied, [V, D].
    stacked: all of them as [K, D, V], if there is one for every slot and their
      vocabularies are equal.
    tied: whether they are rows of an embedding table.
  """

  vocabularies: tuple[int, ...]
  parts: dict[int, ops.Weight]
  stacked: ops.Weight | None = None
  tied: bool = False

  def one(self, h: Float[Array, '*b D'], slot: int) -> Float[Array, '*b V']:
    """Logits (fp32) of one slot."""
    rows = h.reshape(-1, h.shape[-1])
    product = 'bd,vd->bv' if self.tied else 'bd,dv->bv'
    logits = ops.einsum(product, rows, self.parts[slot])
    logits = sharding.constrain(logits, ('batch', 'activation_vocab'))
    return logits.astype(jnp.float32).reshape(*h.shape[:-1], -1)

  def at(
      self,
      h: Float[Array, 'B D'],
      slots: Int[Array, 'B'],
      among: Sequence[int],
  ) -> Float[Array, 'B V']:
    """Logits of each row's own slot, one of `among`; -inf past its codes."""
    most = max(self.vocabularies)
    kernels = [
        heads_base.pad_vocabulary(self.one(h, slot), most) for slot in among
    ]
    chosen = [slots[:, None] == slot for slot in among[:-1]]
    return (
        jnp.select(chosen, kernels[:-1], kernels[-1]) if chosen else kernels[0]
    )

  def logits(
      self, h: Float[Array, 'B N *g D'], slots: Int[np.ndarray, 'N G']
  ) -> Float[Array, 'B N G V']:
    """Logits (fp32) of every position; -inf past its slot's codes.

    V is that of the largest of `slots`.

    Args:
      h: [B, N, D] for all positions of a step, or [B, N, G, D] for each of them.
      slots: the slot of each position.
    """
    if self._in_order(slots):
      return self._all(h)
    most = max(self.vocabularies[slot] for slot in np.unique(slots))
    by_slot = self._by_slot(
        h, slots, lambda logits, _: heads_base.pad_vocabulary(logits, most)
    )
    return by_slot.reshape(*h.shape[:2], slots.shape[1], -1)

  def log_prob(
      self,
      h: Float[Array, 'B N *g D'],
      codes: Int[Array, 'B N G'],
      slots: Int[np.ndarray, 'N G'],
  ) -> Float[Array, 'B N G']:
    """Log-probabilities (nats, fp32) of the codes of every step.

    Args:
      h: see `logits`.
      codes: what the steps hold.
      slots: the slot of each position.
    """
    if self._in_order(slots):
      return heads_base.select_log_prob(self._all(h), codes)
    flat = codes.reshape(codes.shape[0], -1)
    by_slot = self._by_slot(
        h,
        slots,
        lambda logits, cells: heads_base.select_log_prob(
            logits, flat[:, cells]
        ),
    )
    return by_slot.reshape(codes.shape)

  def _in_order(self, slots):
    """Whether `stacked` has the classifiers of the positions, position by position."""
    order = np.arange(len(self.vocabularies))
    alike = slots.shape[1:] == order.shape and (slots == order).all()
    return self.stacked is not None and alike

  def _all(self, h):
    product = 'bngd,gdv->bngv' if h.ndim == 4 else 'bnd,gdv->bngv'
    logits = ops.einsum(product, h, self.stacked).astype(jnp.float32)
    return sharding.constrain(logits, ('batch',))

  def _by_slot(self, h, slots, function):
    """function(logits [B, n, V], cells [n]) [B, n, ...] of each slot's n positions.

    Together [B, N G, ...]. Places are sorted by slot, so that each meets its own
    matrix only.
    """
    group = 1 if h.ndim == 4 else slots.shape[1]
    rows = h.reshape(h.shape[0], -1, h.shape[-1])
    cells, values = [], []
    for slot in np.unique(slots):
      index = np.flatnonzero(slots.ravel() == slot)
      logits = self.one(rows[:, index // group], slot)
      values.append(function(logits, index))
      cells.append(index)
    inverse = np.argsort(np.concatenate(cells))
    return jnp.concatenate(values, axis=1)[:, inverse]


def create(
    module: nn.Module,
    name: str,
    slots: Sequence[int],
    vocabularies: tuple[int, ...],
    width: int,
) -> Kernels:
  """Creates (in init) or fetches classifiers as parameters of `module`.

  One weight [K, D, V] under `name` if their vocabularies are equal, else one
  [D, V] for each slot, under `name` and its number.

  Args:
    module: inside one of its compact methods.
    name: of the weights.
    slots: which, ascending.
    vocabularies: of all slots.
    width: D.
  """
  init = nn.initializers.normal(0.02)
  sizes = {vocabularies[slot] for slot in slots}
  if len(sizes) > 1:
    parts = {
        slot: ops.weight(
            module,
            f'{name}_{slot}',
            init,
            (width, vocabularies[slot]),
            ('embed', 'vocab'),
        )
        for slot in slots
    }
    return Kernels(vocabularies, parts)
  shape = (len(slots), width, *sizes)
  stacked = ops.weight(module, name, init, shape, ('slots', 'embed', 'vocab'))
  parts = {
      # All arrays of a leaf lead with the slot.
      slot: jax.tree.map(lambda w, i=i: w[i], stacked)
      for i, slot in enumerate(slots)
  }
  whole = tuple(slots) == tuple(range(len(vocabularies)))
  return Kernels(vocabularies, parts, stacked if whole else None)


def tie(table: ops.Weight, vocabularies: tuple[int, ...]) -> Kernels:
  """Classifiers that are the slots' rows of an embedding table."""
  ends = np.cumsum(vocabularies)
  parts = {
      slot: weights.part(table, int(end) - size, int(end))
      for slot, (end, size) in enumerate(zip(ends, vocabularies, strict=True))
  }
  return Kernels(vocabularies, parts, tied=True)
