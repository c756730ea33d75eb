"""Where arrays lie on a mesh of devices: one table for weights and activations.

`constrain` is what models call; `training.mesh` cuts weights by the same table.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

AXES = ('data', 'fsdp', 'tensor')

# Logical axis -> mesh axis, or axes. Names that are absent here are whole on
# every device.
RULES = {
    # Of weights. 'fsdp' cuts inputs and 'tensor' outputs, so that one weight
    # can be cut by both.
    'embed': 'fsdp',
    'channels_in': 'fsdp',
    'mlp': 'tensor',
    'heads': 'tensor',
    'vocab': 'tensor',
    'channels_out': 'tensor',
    'experts': 'tensor',
    # Of activations, whose names are their own: by the weights' 'embed' the
    # rows would be whole on all devices of 'fsdp', and each compute them all.
    'batch': ('data', 'fsdp'),
    'activation_length': None,
    'activation_embed': None,
    'activation_vocab': 'tensor',
}
BATCH = PartitionSpec(RULES['batch'])


def constrain(x: Array, names: tuple[str | None, ...]) -> Array:
  """`x`, and in a program for several devices where its parts lie.

  So do its gradient's. Without it the compiler may well cut activations as
  weights are cut, and give every device all rows.

  Args:
    x: an activation.
    names: logical axes of its first dimensions, from `RULES`; how the others
      (and those whose size the devices do not divide) are cut is the
      compiler's choice. None stands for whole.

  Raises:
    KeyError: for a name that is not in `RULES`.
  """
  rules = [None if name is None else RULES[name] for name in names]
  mesh = _mesh()
  if mesh is None:
    return x
  entries = [PartitionSpec.UNCONSTRAINED] * x.ndim
  for i, axes in enumerate(rules):
    if x.shape[i] % _shards(axes, mesh) == 0:
      entries[i] = axes
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*entries))


def by_rows(function: Callable[..., Any], *args: Any) -> Any:
  """`function(*args)`, which each device computes for its own rows.

  For what the compiler would do with all rows on every device: Fourier
  transforms, sorts. Rows that the devices do not divide are left to it.

  Args:
    function: of rows that do not depend on each other. Arrays that it closes
      over are whole on each device.
    *args: arrays [B, ...], or trees of them, as the result is.
  """
  mesh = _mesh()
  rows = jax.tree.leaves(args)[0].shape[0]
  if mesh is None or rows % _shards(RULES['batch'], mesh):
    return function(*args)
  return jax.shard_map(
      function,
      in_specs=BATCH,
      out_specs=BATCH,
      axis_names=set(RULES['batch']),
      check_vma=False,
  )(*args)


def whole(tree: Any) -> Any:
  """Arrays whole on every device, as results are that every process reads."""
  if _mesh() is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def platform() -> str:
  """What runs the program being traced: 'cpu', 'gpu', 'tpu', ...

  Within a mesh it is that of its devices, which need not be here.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def _mesh() -> jax.sharding.AbstractMesh | None:
  """The mesh around, if it has several devices and is the compiler's."""
  mesh = jax.sharding.get_abstract_mesh()
  alone = mesh.axis_names != AXES or mesh.size == 1
  return None if alone or mesh.manual_axes else mesh


def _shards(axes, mesh):
  """Into how many parts mesh axes cut a dimension."""
  names = (axes,) if isinstance(axes, str) else axes or ()
  return math.prod(mesh.shape[name] for name in names)
