"""Linear maps whose transpose is written by hand.

`jax.custom_vjp` gives a function a gradient of its own, and takes `jax.jvp` away
from it: mean-flow and consistency objectives and exact likelihoods of flows need
that. A function is given both by `jax.custom_jvp` with tangents that are
`apply(tangents, transpose, residuals, inputs)`: forward mode runs `tangents`,
reverse mode `transpose`, and every further derivative is JAX's own of what
either of them computes.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp

NAME = 'linear_map'


def apply(
    function: Callable[[Any, Any], Any],
    transpose: Callable[[Any, Any], Any],
    residuals: Any,
    inputs: Any,
) -> Any:
  """function(residuals, inputs), whose gradient is `transpose`.

  Args:
    function: linear in its second argument, differentiable by JAX in both.
    transpose: maps (residuals, cotangents of what `function` returns) to
      cotangents of all `inputs`, in their dtypes.
    residuals: a tree of arrays.
    inputs: a tree of floating or complex arrays.
  """
  held, held_tree = jax.tree.flatten(residuals)
  linear, linear_tree = jax.tree.flatten(inputs)
  shapes = jax.eval_shape(function, residuals, inputs)
  out_tree = jax.tree.structure(shapes)

  def flat_function(held, linear):
    y = function(
        jax.tree.unflatten(held_tree, held),
        jax.tree.unflatten(linear_tree, linear),
    )
    return jax.tree.leaves(y)

  def flat_transpose(held, cotangents):
    y = transpose(
        jax.tree.unflatten(held_tree, held),
        jax.tree.unflatten(out_tree, cotangents),
    )
    return linear_tree.flatten_up_to(y)

  outputs = _LINEAR_MAP.bind(
      *held,
      *linear,
      function=flat_function,
      transpose=flat_transpose,
      residuals=len(held),
  )
  return jax.tree.unflatten(out_tree, outputs)


def evaluate(*arguments: Any, function: Any, residuals: int, **_) -> list[Any]:
  """What an equation of the primitive `NAME` computes, by its parameters."""
  return function(list(arguments[:residuals]), list(arguments[residuals:]))


def _shapes(*arguments, **options):
  function = functools.partial(evaluate, **options)
  return [
      arguments[0].update(shape=y.shape, dtype=y.dtype)
      for y in jax.eval_shape(function, *_structs(arguments))
  ]


def _structs(avals):
  return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]


def _jvp(primals, tangents, *, residuals, **options):
  """Tangents of linear arguments by the map itself, of residuals by JAX."""
  function = functools.partial(evaluate, residuals=residuals, **options)
  outputs = _LINEAR_MAP.bind(*primals, residuals=residuals, **options)
  moving = [not isinstance(t, ad.Zero) for t in tangents]
  parts = []
  if any(moving[residuals:]):
    inputs = [ad.instantiate_zeros(t) for t in tangents[residuals:]]
    parts.append(
        _LINEAR_MAP.bind(
            *primals[:residuals], *inputs, residuals=residuals, **options
        )
    )
  # Residuals such as masks have no tangents.
  held = {i: tangents[i] for i in range(residuals) if moving[i]}
  if held:
    parts.append(jvp_of_some(function, primals, held)[1])
  # JAX asks for tangents only where there are some.
  return outputs, [
      functools.reduce(ad.add_tangents, p) for p in zip(*parts, strict=True)
  ]


def jvp_of_some(
    function: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Mapping[int, Any],
) -> tuple[Any, Any]:
  """`jax.jvp` in those arguments that have tangents, the others held.

  Args:
    function: of all arguments.
    primals: their values.
    tangents: by the number of the argument.
  """

  def of_some(*values):
    arguments = list(primals)
    for i, value in zip(tangents, values, strict=True):
      arguments[i] = value
    return function(*arguments)

  return jax.jvp(of_some, [primals[i] for i in tangents], [*tangents.values()])


def _transpose(cotangents, *arguments, transpose, residuals, **_):
  if any(map(ad.is_undefined_primal, arguments[:residuals])):
    # JAX's own derivatives never ask for this; `jax.linear_transpose` may.
    raise ValueError(
        f'{NAME} is linear in its inputs alone: it has no transpose with respect'
        ' to its residuals. Write the map with that argument as an input.'
    )
  cotangents = [ad.instantiate_zeros(c) for c in cotangents]
  results = transpose(list(arguments[:residuals]), cotangents)
  # An input without a tangent stands here as known zeros.
  results = [
      result if ad.is_undefined_primal(argument) else None
      for result, argument in zip(results, arguments[residuals:], strict=True)
  ]
  return [None] * residuals + results


def _batch(arguments, axes, *, function, transpose, residuals):
  """Over a leading axis: of all linear arguments, of the mapped residuals."""
  size = next(
      a.shape[axis]
      for a, axis in zip(arguments, axes, strict=True)
      if axis is not None
  )
  moved = [
      a if axis is None else jnp.moveaxis(a, axis, 0)
      for a, axis in zip(arguments, axes, strict=True)
  ]
  for i in range(residuals, len(moved)):
    if axes[i] is None:
      moved[i] = jnp.broadcast_to(moved[i], (size, *moved[i].shape))
  mapped = [None if axis is None else 0 for axis in axes[:residuals]]
  outputs = _LINEAR_MAP.bind(
      *moved,
      function=jax.vmap(function, (mapped, 0)),
      transpose=jax.vmap(transpose, (mapped, 0)),
      residuals=residuals,
  )
  return outputs, [0] * len(outputs)


_LINEAR_MAP = core.Primitive(NAME)
_LINEAR_MAP.multiple_results = True
_LINEAR_MAP.def_impl(evaluate)
_LINEAR_MAP.def_abstract_eval(_shapes)
mlir.register_lowering(
    _LINEAR_MAP, mlir.lower_fun(evaluate, multiple_results=True)
)
ad.primitive_jvps[_LINEAR_MAP] = _jvp
ad.primitive_transposes[_LINEAR_MAP] = _transpose
batching.primitive_batchers[_LINEAR_MAP] = _batch
