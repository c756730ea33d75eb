"""The transformer backbone: pre-norm, RMSNorm, rotary positions."""

from typing import Annotated, Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.ops import attention

_MATRIX = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')


class Cache(flax.struct.PyTreeNode):
  """Keys and values of the past, an explicit state.

  Attributes:
    k: [L, B, S, J, D] keys of every layer, room for S positions.
    v: likewise, values.
    position: [B] positions seen so far, row by row. A row starts again by
      setting its position to 0; what the cache still holds is then unseen.
  """

  k: Float[Array, 'L B S J D']
  v: Float[Array, 'L B S J D']
  position: Int[Array, 'B']


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in fp32 (1910.07467, eq. 4)."""

  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, '*b D']) -> Float[Array, '*b D']:
    scale = ops.materialize(
        ops.weight(self, 'scale', nn.initializers.ones, x.shape[-1:], (None,))
    )
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
    return (y * scale).astype(x.dtype)


class Mlp(nn.Module):
  """A gated or plain two-layer perceptron, without biases."""

  width: int
  activation: Literal['swiglu', 'gelu', 'relu']

  @nn.compact
  def __call__(self, x):
    shape, axes = (x.shape[-1], self.width), ('embed', 'mlp')
    h = ops.einsum(
        'bnd,df->bnf', x, ops.weight(self, 'up', _MATRIX, shape, axes)
    )
    if self.activation == 'swiglu':
      gate = ops.weight(self, 'gate', _MATRIX, shape, axes)
      h *= jax.nn.silu(ops.einsum('bnd,df->bnf', x, gate))
    elif self.activation == 'gelu':
      h = jax.nn.gelu(h)
    else:
      h = jax.nn.relu(h)
    down = ops.weight(self, 'down', _MATRIX, shape[::-1], axes[::-1])
    return ops.einsum('bnf,fd->bnd', h, down)


class Attention(nn.Module):
  """Multi-head attention with grouped queries and rotary positions."""

  heads: int
  kv_heads: int

  @nn.compact
  def __call__(self, x, cache, position, rotation, seen, valid):
    width = x.shape[-1]
    size = width // self.heads

    def project(name, heads):
      w = ops.weight(
          self, name, _MATRIX, (width, heads * size), ('embed', 'heads')
      )
      return ops.einsum('bnd,df->bnf', x, w).reshape(*x.shape[:2], heads, size)

    q = attention.rotate(project('query', self.heads), rotation)
    k = attention.rotate(project('key', self.kv_heads), rotation)
    v = project('value', self.kv_heads)
    if cache is not None:
      k = attention.write_cache(cache[0], k, position)
      v = attention.write_cache(cache[1], v, position)
      cache = (k, v)
    y = attention.attend(q, k, v, seen, valid)
    w = ops.weight(self, 'out', _MATRIX, (width, width), ('heads', 'embed'))
    return ops.einsum('bnf,fd->bnd', y.reshape(x.shape), w), cache


class Block(nn.Module):
  """One layer; the scan's carry is x, its slice the layer's part of a cache."""

  heads: int
  kv_heads: int
  mlp_width: int
  activation: str
  dropout: float
  deterministic: bool

  @nn.compact
  def __call__(self, x, cache, *shared):
    drop = nn.Dropout(self.dropout, deterministic=self.deterministic)
    y, cache = Attention(self.heads, self.kv_heads, name='attention')(
        RMSNorm(name='attention_norm')(x), cache, *shared
    )
    x += drop(y)
    y = Mlp(self.mlp_width, self.activation, name='mlp')(
        RMSNorm(name='mlp_norm')(x)
    )
    return x + drop(y), cache


class Transformer(nn.Module):
  """A stack of identical layers, scanned.

  Attributes:
    width: of the residual stream.
    layers: how many.
    heads: query heads; divides width.
    kv_heads: key heads; divides heads. None: as many as heads.
    mlp_width: hidden width of the perceptrons.
    activation: of the perceptrons. On CPUs relu's gradient is 1.7x faster.
    rope_theta: base of the rotary frequencies.
    window: see `attention.Mask`.
    dropout: of what each branch adds to the residual stream.
    remat: what the backward pass recomputes: nothing, everything, or everything
      but the results of matrix products.
    dtype: of activations; parameters, norms and softmax are fp32.
  """

  width: Annotated[int, config.Range(min=1)] = 256
  layers: Annotated[int, config.Range(min=1)] = 4
  heads: Annotated[int, config.Range(min=1)] = 4
  kv_heads: Annotated[int, config.Range(min=1)] | None = None
  mlp_width: Annotated[int, config.Range(min=1)] = 1024
  activation: Literal['swiglu', 'gelu', 'relu'] = 'swiglu'
  rope_theta: Annotated[float, config.Range(min=1)] = 10_000.0
  window: Annotated[int, config.Range(min=1)] | None = None
  dropout: Annotated[float, config.Range(min=0, max=0.95)] = 0.0
  remat: Literal['none', 'full', 'dots'] = 'none'
  dtype: Literal['float32', 'bfloat16'] = 'float32'

  def init_cache(self, batch: int, positions: int) -> Cache:
    """An empty cache with room for `positions` positions a row."""
    heads = self.kv_heads or self.heads
    shape = (self.layers, batch, positions, heads, self.width // self.heads)
    zeros = jnp.zeros(shape, self.dtype)
    return Cache(zeros, zeros, jnp.zeros(batch, jnp.int32))

  @nn.compact
  def __call__(
      self,
      x: Float[Array, 'B N D'],
      valid: Bool[Array, 'B N'] | None = None,
      kind: attention.Kind = 'causal',
      cache: Cache | None = None,
      deterministic: bool = True,
  ) -> tuple[Float[Array, 'B N D'], Cache | None]:
    """Transforms a whole sequence, or the next N positions of a cached one.

    Args:
      x: inputs. Where not valid they may hold NaN.
      valid: positions that exist; None for all.
      kind: of the mask. With a cache: causal, or whole blocks.
      cache: the past; its room must suffice for N more positions.
      deterministic: False applies dropout, from the rng stream 'dropout'.

    Returns:
      Normed outputs, unspecified where not valid, and the extended cache.

    Raises:
      ValueError: if heads do not divide the width, or kv_heads heads.
    """
    kv_heads = self.kv_heads or self.heads
    if self.width % self.heads or self.heads % kv_heads:
      raise ValueError(
          f'width {self.width}, heads {self.heads} and kv_heads {kv_heads}:'
          ' each must be a multiple of the next.'
      )
    batch, length, _ = x.shape
    x = x.astype(self.dtype)
    if valid is None:
      valid = jnp.ones((batch, length), bool)
    x = jnp.where(valid[..., None], x, 0)
    queries = jnp.arange(length)[None]
    if cache is None:
      keys, layer_caches, start = queries, None, None
    else:
      start = cache.position
      queries = start[:, None] + queries
      keys = jnp.arange(cache.k.shape[2])[None]
      valid = keys < start[:, None] + length
      layer_caches = (cache.k, cache.v)
    seen = attention.Mask(kind, self.window)(queries, keys)
    rotation = attention.rotary(
        queries, self.width // self.heads, self.rope_theta
    )
    block = Block
    if self.remat != 'none':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      policy = policy if self.remat == 'dots' else None
      block = nn.remat(Block, policy=policy, prevent_cse=False)
    stack = nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, *[nn.broadcast] * 4),
        length=self.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )(
        self.heads,
        kv_heads,
        self.mlp_width,
        self.activation,
        self.dropout,
        deterministic,
        name='layers',
    )
    x, layer_caches = stack(x, layer_caches, start, rotation, seen, valid)
    if cache is not None:
      cache = Cache(*layer_caches, start + length)
    return RMSNorm(name='norm')(x), cache
