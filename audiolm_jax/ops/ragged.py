"""`lax.ragged_dot` on CPUs, where XLA multiplies every row by every group.

Rows, sorted by group, are taken in blocks that lie within one group each. A
block reads its group's matrix only, so the work is that of the rows: 5-100x
less than XLA's, in training as in steps of a few rows.

Both are primitives, so that `training.costs` finds them whole, by their names,
however a program is transformed: their loops mostly end before their count.
Each is linear in either of its first two arguments, and the derivatives of one
are the other and itself.
"""

import functools

import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Rows of a block, where groups have as many.
_MOST = 64


def ragged_dot(
    x: Float[Array, 'N D'],
    w: Float[Array, 'E D F'],
    group_sizes: Int[Array, 'E'],
) -> Float[Array, 'N F']:
  """Rows of x times their group's matrix; zeros for rows of no group.

  Args:
    x: rows, those of the first group first.
    w: a matrix for each group.
    group_sizes: rows of each; their sum may be less than N.
  """
  return _ROWS.bind(x, w, group_sizes, transposed=False)


def _rows(x, w, group_sizes, *, transposed):
  """`ragged_dot`; `transposed` takes w as [E, F, D]."""
  rows = x.shape[0]
  size, blocks = _blocks(group_sizes, rows)
  x = jnp.pad(x, ((0, size), (0, 0)))
  features = w.shape[1 if transposed else 2]

  def multiply(y, block):
    group, first, last = block
    matrix = jax.lax.dynamic_index_in_dim(w, group, keepdims=False)
    part = jax.lax.dynamic_slice_in_dim(x, first, size)
    part = part @ (matrix.T if transposed else matrix)
    # The next group's rows that the block may reach into stay as they are.
    mine = (first + jnp.arange(size) < last)[:, None]
    old = jax.lax.dynamic_slice_in_dim(y, first, size)
    part = jnp.where(mine, part, old)
    return jax.lax.dynamic_update_slice_in_dim(y, part, first, axis=0)

  y = jnp.zeros((rows + size, features), x.dtype)
  return _over_blocks(multiply, y, blocks)[:rows]


def _weights(x, y, group_sizes):
  """The sums [E, D, F] over each group's rows of x y^T, fp32."""
  size, blocks = _blocks(group_sizes, x.shape[0])
  x, y = (jnp.pad(a, ((0, size), (0, 0))) for a in (x, y))

  def add(total, block):
    group, first, last = block
    mine = (first + jnp.arange(size) < last)[:, None]
    left = jnp.where(mine, jax.lax.dynamic_slice_in_dim(x, first, size), 0)
    right = jax.lax.dynamic_slice_in_dim(y, first, size)
    product = jnp.matmul(left.T, right, preferred_element_type=jnp.float32)
    old = jax.lax.dynamic_index_in_dim(total, group, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(
        total, old + product, group, axis=0
    )

  shape = (group_sizes.shape[0], x.shape[1], y.shape[1])
  return _over_blocks(add, jnp.zeros(shape, jnp.float32), blocks)


def _blocks(group_sizes, rows):
  """Rows of a block, and (group, first row, end of the group, used) of each."""
  groups = group_sizes.shape[0]
  size = 1
  while size < _MOST and 2 * size * groups <= rows:
    size *= 2
  # Each group may leave a block unfilled.
  most = min(rows, rows // size + groups)
  count = -(-group_sizes // size)
  ends = jnp.cumsum(count)
  block = jnp.arange(most)
  group = jnp.searchsorted(ends, block, side='right')
  group = jnp.minimum(group, groups - 1)
  stop = jnp.cumsum(group_sizes)[group]
  start = stop - group_sizes[group]
  first = start + (block - (ends - count)[group]) * size
  return size, (group, first, stop, block < ends[-1])


def _over_blocks(function, carry, blocks):
  def body(carry, block):
    *block, used = block
    carry = jax.lax.cond(used, lambda c: function(c, block), lambda c: c, carry)
    return carry, None

  return jax.lax.scan(body, carry, blocks)[0]


def _primitive(name, function, shape, static=()):
  """A primitive that is `function`, over batches one by one.

  Args:
    name: of the primitive.
    function: of arrays.
    shape: what it gives, from the shapes of its arguments.
    static: names of options.
  """
  primitive = core.Primitive(name)
  primitive.def_impl(jax.jit(function, static_argnames=static))
  primitive.def_abstract_eval(shape)
  mlir.register_lowering(
      primitive, mlir.lower_fun(function, multiple_results=False)
  )

  def batch(arguments, axes, **options):
    size = next(
        a.shape[axis]
        for a, axis in zip(arguments, axes, strict=True)
        if axis is not None
    )
    arguments = [
        jnp.broadcast_to(a, (size, *a.shape))
        if axis is None
        else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arguments, axes, strict=True)
    ]
    one = functools.partial(primitive.bind, **options)
    return jax.lax.map(lambda a: one(*a), tuple(arguments)), 0

  batching.primitive_batchers[primitive] = batch
  return primitive


def _rows_shape(x, w, group_sizes, *, transposed):
  del group_sizes
  return x.update(shape=(x.shape[0], w.shape[1 if transposed else 2]))


def _weights_shape(x, y, group_sizes):
  shape = (group_sizes.shape[0], x.shape[1], y.shape[1])
  return x.update(shape=shape, dtype=jnp.dtype('float32'))


_ROWS = _primitive('ragged_rows', _rows, _rows_shape, ('transposed',))
_WEIGHTS = _primitive('ragged_weights', _weights, _weights_shape)


def _jvp(primitive, primals, tangents, **options):
  """Of a primitive that is linear in each of its first two arguments."""
  x, y, group_sizes = primals
  result = primitive.bind(x, y, group_sizes, **options)
  pairs = (tangents[0], y), (x, tangents[1])
  parts = [
      primitive.bind(*pair, group_sizes, **options)
      for pair, tangent in zip(pairs, tangents[:2], strict=True)
      if not isinstance(tangent, ad.Zero)
  ]
  return result, functools.reduce(ad.add_tangents, parts)


def _rows_transpose(cotangent, x, w, group_sizes, *, transposed):
  if isinstance(cotangent, ad.Zero):
    return None, None, None
  if ad.is_undefined_primal(x):
    dx = _ROWS.bind(cotangent, w, group_sizes, transposed=not transposed)
    return dx.astype(x.aval.dtype), None, None
  pair = (cotangent, x) if transposed else (x, cotangent)
  dw = _WEIGHTS.bind(*pair, group_sizes)
  return None, dw.astype(w.aval.dtype), None


def _weights_transpose(cotangent, x, y, group_sizes):
  if isinstance(cotangent, ad.Zero):
    return None, None, None
  # Each row meets its group's cotangent, in the rows' dtype as a weight would.
  if ad.is_undefined_primal(x):
    matrices = cotangent.astype(y.dtype)
    dx = _ROWS.bind(y, matrices, group_sizes, transposed=True)
    return dx.astype(x.aval.dtype), None, None
  matrices = cotangent.astype(x.dtype)
  dy = _ROWS.bind(x, matrices, group_sizes, transposed=False)
  return None, dy.astype(y.aval.dtype), None


for _primitive_, _rule in (
    (_ROWS, _rows_transpose),
    (_WEIGHTS, _weights_transpose),
):
  ad.primitive_jvps[_primitive_] = functools.partial(_jvp, _primitive_)
  ad.primitive_transposes[_primitive_] = _rule
