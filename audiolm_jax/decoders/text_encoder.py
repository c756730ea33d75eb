"""T5's encoder (1910.10683): the states of a text that a decoder attends to."""

import math
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import norms
from audiolm_jax.ops import sharding

_COUNT = config.Range(min=1)


class T5Encoder(nn.Module):
  """Pre-normed layers of attention over all of a text, and perceptrons.

  Attention tells positions apart by a learned offset of its logits for each
  head and distance, the same in all layers; distances share offsets, the more
  the longer they are.

  Attributes:
    vocabulary: how many ids there are.
    width: of the states.
    layers: how many.
    heads: of each layer.
    head_width: of queries, keys and values. Their products are not scaled.
    hidden: of the perceptrons (relu).
    buckets: how many offsets a head has, one half for each direction.
    max_distance: from here on all distances share one.
    norm_epsilon: of the norms (RMS).
    dtype: of activations.
  """

  vocabulary: Annotated[int, _COUNT] = 32128
  width: Annotated[int, _COUNT] = 768
  layers: Annotated[int, _COUNT] = 12
  heads: Annotated[int, _COUNT] = 12
  head_width: Annotated[int, _COUNT] = 64
  hidden: Annotated[int, _COUNT] = 3072
  buckets: Annotated[int, config.Range(min=4)] = 32
  max_distance: Annotated[int, _COUNT] = 128
  norm_epsilon: config.NonNegative = 1e-6
  dtype: Literal['float32', 'bfloat16'] = 'float32'

  @nn.compact
  def __call__(
      self, ids: Int[Array, 'B S'], mask: Bool[Array, 'B S']
  ) -> Float[Array, 'B S D']:
    """The states of a text, unspecified where masked.

    Args:
      ids: anything where masked.
      mask: prefixes of the rows.
    """
    init = nn.initializers.normal(1.0)
    shape = (self.vocabulary, self.width)
    table = ops.weight(self, 'table', init, shape, ('vocab', 'embed'))
    x = ops.take(table, jnp.where(mask, ids, 0), jnp.dtype(self.dtype))
    x = sharding.constrain(x, ('batch',))
    shape = (self.buckets, self.heads)
    offsets = ops.weight(self, 'offsets', init, shape, (None, None))
    at = np.arange(ids.shape[1])
    which = buckets(at[None] - at[:, None], self.buckets, self.max_distance)
    offsets = jnp.moveaxis(ops.take(offsets, which, jnp.float32), -1, 0)
    for i in range(self.layers):
      layer = _Layer(
          self.heads,
          self.head_width,
          self.hidden,
          self.norm_epsilon,
          name=f'layer_{i}',
      )
      x = layer(x, mask, offsets)
    return norms.Norm('rms', self.norm_epsilon, name='norm')(x)


class _Layer(nn.Module):
  """See `T5Encoder`."""

  heads: int
  head_width: int
  hidden: int
  epsilon: float

  @nn.compact
  def __call__(self, x, mask, offsets):
    y = norms.Norm('rms', self.epsilon, name='attention_norm')(x)
    x += self._attend(y, mask, offsets)
    y = norms.Norm('rms', self.epsilon, name='mlp_norm')(x)
    x += mlps.Dense(self.hidden, 'relu', name='mlp')(y, mask)[0]
    return sharding.constrain(x, ('batch',))

  def _attend(self, x, mask, offsets):
    q, k, v = (self._heads(x, name) for name in ('query', 'key', 'value'))
    scores = jnp.einsum(
        'bqhd,bkhd->bhqk', q, k, preferred_element_type=jnp.float32
    )
    # A finite floor: a row without a text would be NaN.
    low = jnp.finfo(jnp.float32).min
    scores = jnp.where(mask[:, None, None], scores + offsets, low)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    y = jnp.einsum('bhqk,bkhd->bqhd', weights, v)
    y = y.reshape(*x.shape[:2], -1)
    return ops.linear(self, 'out', y, x.shape[-1], ('heads', 'embed'))

  def _heads(self, x, name):
    features = self.heads * self.head_width
    y = ops.linear(self, name, x, features, ('embed', 'heads'))
    return y.reshape(*x.shape[:2], self.heads, self.head_width)


def buckets(
    distances: Int[np.ndarray, '*s'], count: int, max_distance: int
) -> Int[np.ndarray, '*s']:
  """Which of `count` offsets each distance has (mesh-tensorflow's buckets).

  Half of them are for keys behind the query, the others for those after it. Of
  each half, one half is for single distances, the other grows geometrically up
  to `max_distance`.

  Args:
    distances: of keys from their query, positive for later ones.
    count: of offsets.
    max_distance: from here on distances share the last one.
  """
  half = count // 2
  exact = half // 2
  size = np.abs(distances)
  # In fp32 as there, where a boundary may be an integer.
  ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
  ratio = ratio / np.float32(math.log(max_distance / exact))
  far = exact + (ratio * np.float32(half - exact)).astype(np.int32)
  near = np.where(size < exact, size, np.minimum(far, half - 1))
  return near + half * (distances > 0)
