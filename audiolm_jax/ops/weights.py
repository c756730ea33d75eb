"""Weights as leaves: plain arrays, low-rank updates, 4 and 8-bit integers.

Modules create and fetch every weight with `weight`, and multiply by it only
through `ops.products`. A parameter transform can therefore replace any leaf of a
parameter tree by another *kind* of leaf without touching a model.
"""

import abc
from collections.abc import Callable
import functools
from typing import NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, UInt8

# Leading logical axes over which a weight is a batch of matrices (or vectors).
# All other axes but the last are inputs, the last is the output.
BATCH_AXES = ('layers', 'experts', 'slots', 'blocks')


class LowRank(NamedTuple):
  """base + scale * a b, where a has the base's batch and input axes.

  Attributes:
    base: of any kind.
    a: batch axes + inputs + (rank,).
    b: batch axes + (rank, out).
    scale: of the update.
  """

  base: 'Weight'
  a: Array
  b: Array
  scale: float


class Leaf(flax.struct.PyTreeNode, abc.ABC):
  """A weight that is not stored as an array: what `ops.products` asks of it.

  To add a kind: a subclass with `shape` and `dense`, and whichever of the other
  methods has a shorter way than by the dense array.
  """

  @property
  @abc.abstractmethod
  def shape(self) -> tuple[int, ...]:
    """The logical shape."""

  @property
  def ndim(self) -> int:
    return len(self.shape)

  @abc.abstractmethod
  def dense(self) -> Array:
    """The array that it stands for."""

  def low_rank(self) -> LowRank | None:
    """Its low-rank form, whose parts are multiplied one after the other."""
    return None

  def rows(self, ids: Int[Array, '*n']) -> 'Weight':
    """The rows of a matrix [V, D] at `ids`, as a weight [*n, D]."""
    return jnp.take(self.dense(), ids, axis=0)

  def part(self, start: int, stop: int) -> 'Weight':
    """Rows [start, stop) of a matrix, as a weight of two axes."""
    return self.dense()[start:stop]

  def with_base(self, function: Callable[['Weight'], 'Weight']) -> 'Leaf':
    """With `function` of the weight that it stands on, if there is one."""
    del function
    return self

  def einsum(self, subscripts: str, x: Array) -> Array | None:
    """`jnp.einsum(subscripts, x, self)` in x's dtype; None for the dense way."""
    del subscripts, x
    return None


class LoraTensor(Leaf):
  """w + scale * a b, never materialised by `ops.products` (Hu et al. 2021, eq. 3).

  Attributes:
    w: the base weight, batch axes + inputs + (out,); an array or PackedTensor.
    a: batch axes + inputs + (rank,).
    b: batch axes + (rank, out). Zero at the start: the base model exactly.
    scale: alpha / rank, static so that scans over layers do not see it.
  """

  w: 'Weight'
  a: Float[Array, '*inputs r']
  b: Float[Array, '*batch r out']
  scale: float = flax.struct.field(pytree_node=False, default=1.0)

  @property
  def shape(self):
    return self.w.shape

  def low_rank(self):
    return LowRank(self.w, self.a, self.b, self.scale)

  def part(self, start, stop):
    return self.replace(w=part(self.w, start, stop), a=self.a[start:stop])

  def with_base(self, function):
    return self.replace(w=function(self.w))

  def dense(self):
    base = materialize(self.w)
    if self.b.ndim == 2:
      update = self.a @ self.b
    else:
      batch = self.b.ndim - 2
      flat = self.a.reshape(*self.a.shape[:batch], -1, self.a.shape[-1])
      update = (flat @ self.b).reshape(base.shape)
    return base + self.scale * update


class PackedTensor(Leaf):
  """A 4-bit weight: two values a byte, one scale for each output.

  The value is (nibble - 8) * scale. Low nibbles hold the first half of the last
  axis, high nibbles the second.

  Attributes:
    packed: [..., in, out / 2] uint8.
    scale: [..., 1, out] float32, of the same rank as the weight.
  """

  packed: UInt8[Array, '*inputs half']
  scale: Float[Array, '*ones out']

  @property
  def shape(self):
    return (*self.packed.shape[:-1], 2 * self.packed.shape[-1])

  def dense(self):
    nibbles = jnp.concatenate([self.packed & 0xF, self.packed >> 4], axis=-1)
    return (nibbles.astype(jnp.float32) - 8) * self.scale

  def rows(self, ids):
    # The scale is shared by all rows, so rows are gathered packed.
    return PackedTensor(jnp.take(self.packed, ids, axis=0), self.scale[0])

  def part(self, start, stop):
    return self.replace(packed=self.packed[start:stop])


class Int8Tensor(Leaf):
  """An 8-bit weight with one scale for each output: values * scale.

  Attributes:
    values: [..., in, out] int8.
    scale: [..., 1, out] float32, of the same rank as the weight.
  """

  values: Int8[Array, '*inputs out']
  scale: Float[Array, '*ones out']

  @property
  def shape(self):
    return self.values.shape

  def dense(self):
    return self.values.astype(jnp.float32) * self.scale

  def rows(self, ids):
    return Int8Tensor(jnp.take(self.values, ids, axis=0), self.scale[0])

  def part(self, start, stop):
    return self.replace(values=self.values[start:stop])

  def einsum(self, subscripts, x):
    """Scales what there is less of: the result, or x where outputs are summed."""
    inputs, out = subscripts.split('->')
    left, right = inputs.split(',')
    letters = right[:-2] + right[-1]
    scale = jnp.squeeze(self.scale, -2)
    product = functools.partial(
        jnp.einsum, preferred_element_type=jnp.float32, optimize=False
    )
    values = self.values.astype(x.dtype)
    if set(letters) <= set(out):
      y = product(subscripts, x, values)
      y = product(f'{out},{letters}->{out}', y, scale)
    elif set(letters) <= set(left):
      scaled = product(f'{left},{letters}->{left}', x, scale)
      y = product(subscripts, scaled.astype(x.dtype), values)
    else:
      y = product(subscripts, x, self.dense().astype(x.dtype))
    return y.astype(x.dtype)


Weight = Array | Leaf


def is_weight(x) -> bool:
  """True for a leaf that stands for one whole weight."""
  return isinstance(x, Leaf)


def part(w: Weight, start: int, stop: int) -> Weight:
  """Rows [start, stop) of a matrix of any kind."""
  return w.part(start, stop) if is_weight(w) else w[start:stop]


def low_rank(w: Weight) -> LowRank | None:
  """A weight's low-rank form, if it has one."""
  return w.low_rank() if is_weight(w) else None


def pack(w: Float[Array, '*inputs out']) -> PackedTensor:
  """Rounds a weight to 4 bits, symmetric, one scale per output and batch entry.

  Raises:
    ValueError: if the last axis is odd, or the weight has fewer than two axes.
  """
  if w.ndim < 2 or w.shape[-1] % 2:
    raise ValueError(
        f'pack needs >= 2 axes and an even last one, got {w.shape}'
    )
  largest = jnp.max(jnp.abs(w), axis=-2, keepdims=True)
  scale = jnp.where(largest > 0, largest / 7, 1.0)
  nibbles = (jnp.clip(jnp.round(w / scale), -8, 7) + 8).astype(jnp.uint8)
  low, high = jnp.split(nibbles, 2, axis=-1)
  return PackedTensor(packed=low | (high << 4), scale=scale)


def quantize(w: Float[Array, '*inputs out']) -> Int8Tensor:
  """Rounds a weight to 8 bits, symmetric, one scale per output and batch entry.

  Each value changes by at most half its scale, 1 / 254 of its column's largest.

  Raises:
    ValueError: if the weight has fewer than two axes.
  """
  if w.ndim < 2:
    raise ValueError(f'quantize needs >= 2 axes, got {w.shape}')
  w = w.astype(jnp.float32)
  largest = jnp.max(jnp.abs(w), axis=-2, keepdims=True)
  scale = jnp.where(largest > 0, largest / 127, 1.0)
  return Int8Tensor(jnp.round(w / scale).astype(jnp.int8), scale)


def materialize(w: Weight, dtype: jnp.dtype | None = None) -> Array:
  """The dense array that a leaf stands for.

  For the few uses that need all of it at once (weight norm, small depthwise
  kernels, export); everything else goes through `ops.products`.
  """
  w = w.dense() if is_weight(w) else w
  return w if dtype is None else w.astype(dtype)


def weight(
    module: nn.Module,
    name: str,
    init: Callable[..., Array],
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    dtype: jnp.dtype = jnp.float32,
) -> Weight:
  """Creates (in init) or fetches (in apply) the weight `name` of `module`.

  Linen's `self.param` compares only the first leaf of a stored pytree with the
  initial one, which is wrong for our leaves; here their logical shape is
  compared. Call it inside a compact method.

  Args:
    module: the module that owns the weight.
    name: its name in the parameter tree.
    init: `init(rng, shape, dtype)`, as in `nn.initializers`.
    shape: logical shape.
    axes: one logical axis name (or None) for each dimension; `sharding.RULES`
      maps them to mesh axes, `BATCH_AXES` lead. `nn.scan` adds 'layers'.
    dtype: the dtype to create it in; arrays of another stored dtype are kept.

  Raises:
    ValueError: if the stored leaf has another logical shape.
  """
  if len(axes) != len(shape):
    raise ValueError(f'{name}: {len(axes)} axis names for shape {shape}')
  if module.has_variable('params', name) and not module.is_initializing():
    value = module.get_variable('params', name)
    value = nn.meta.unbox(value)
    if tuple(value.shape) != tuple(shape):
      where = '/'.join((*module.path, name))
      raise ValueError(f'{where} has shape {value.shape}, expected {shape}')
    return value
  boxed = nn.with_logical_partitioning(init, axes)
  return module.param(name, boxed, shape, dtype)


def map_weights(function, tree, *rest):
  """`jax.tree.map` that treats the other kinds of leaves as leaves, too."""
  return jax.tree.map(function, tree, *rest, is_leaf=is_weight)
