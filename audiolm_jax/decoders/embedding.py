"""Embeddings of codes, one table for all slots."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.ops import sharding


class Embedding(nn.Module):
  """Each code's vector, from its slot's part of one table.

  The table's last K rows fill positions that hold no frame.

  Attributes:
    vocabularies: of all K slots.
    width: of the vectors.
    dtype: of the result.
  """

  vocabularies: tuple[int, ...]
  width: int
  dtype: str

  @nn.compact
  def table(self) -> ops.Weight:
    """[sum(vocabularies) + K, width]."""
    shape = (sum(self.vocabularies) + len(self.vocabularies), self.width)
    init = nn.initializers.normal(0.02)
    return ops.weight(self, 'table', init, shape, ('vocab', 'embed'))

  def __call__(
      self,
      codes: Int[Array, '*b G'],
      slots: Int[Array, '*b G'],
      exists: Bool[Array, '*b G'],
  ) -> Float[Array, '*b G D']:
    """One vector a position; codes count only where `exists`."""
    offsets = jnp.array([0, *np.cumsum(self.vocabularies)[:-1]])
    fill = sum(self.vocabularies) + slots
    ids = jnp.where(exists, offsets[slots] + codes, fill)
    x = ops.take(self.table(), ids, jnp.dtype(self.dtype))
    return sharding.constrain(x, ('batch',))
