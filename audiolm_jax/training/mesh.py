"""Devices as a mesh, and how parameters and batches are cut over them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from audiolm_jax import config
from audiolm_jax.ops import sharding

Axes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Config:
  """Devices along each mesh axis; one of them may be -1, for all the rest."""

  data: Annotated[int, config.Range(min=-1)] = -1
  fsdp: Annotated[int, config.Range(min=-1)] = 1
  tensor: Annotated[int, config.Range(min=-1)] = 1

  def build(self) -> jax.sharding.Mesh:
    """The mesh over all devices of all processes.

    Raises:
      config.ConfigError: if the sizes do not multiply to the device count.
    """
    sizes = [getattr(self, axis) for axis in sharding.AXES]
    devices = jax.device_count()
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) == 1 and known > 0 and devices % known == 0:
      sizes = [devices // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != devices or min(sizes) < 1:
      raise config.ConfigError(
          f'config.mesh = {dict(zip(sharding.AXES, sizes, strict=True))}:'
          ' expected sizes >= 1 (one may be -1) whose product is'
          f' {devices}, the number of devices.'
      )
    return over(jax.make_mesh(tuple(sizes), sharding.AXES).devices)


def over(devices: np.ndarray) -> jax.sharding.Mesh:
  """The mesh over an array of devices [data, fsdp, tensor]."""
  # Auto, not Explicit: see DESIGN.md.
  auto = (jax.sharding.AxisType.Auto,) * len(sharding.AXES)
  return jax.sharding.Mesh(devices, sharding.AXES, axis_types=auto)


def key(path) -> str:
  """A leaf's name: its keys joined by dots, as in 'mlp.dense.kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='.')


def flat(tree: Any) -> dict[str, Any]:
  """Leaf name -> leaf, in the tree's order."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {key(path): leaf for path, leaf in leaves}


def is_axes(x: Any) -> bool:
  """True for the tuple of logical names that stands where an array does."""
  return type(x) is tuple and all(n is None or isinstance(n, str) for n in x)


def logical_axes(boxed: Any) -> Any:
  """The tree of logical axis names of params as Linen's init returns them."""

  def names(leaf):
    if isinstance(leaf, nn.meta.AxisMetadata):
      rank = len(leaf.unbox().shape)
      # Whoever lifts a module without naming the new axis leaves names short.
      axes = tuple(leaf.names)
      return (None,) * (rank - len(axes)) + axes
    return (None,) * len(leaf.shape)

  def is_box(leaf):
    return isinstance(leaf, nn.meta.AxisMetadata)

  return jax.tree.map(names, boxed, is_leaf=is_box)


def flat_axes(axes: Any) -> dict[str, Axes]:
  """Leaf name -> logical axes."""
  leaves = jax.tree_util.tree_leaves_with_path(axes, is_leaf=is_axes)
  return {key(path): names for path, names in leaves}


def spec(
    shape: tuple[int, ...], axes: Axes, mesh: jax.sharding.Mesh
) -> PartitionSpec:
  """How an array is cut; a dimension that does not divide stays whole."""
  entries, used = [], set()
  for size, name in zip(shape, axes, strict=True):
    axis = sharding.RULES.get(name)
    if axis in used or axis is None or size % mesh.shape[axis]:
      axis = None
    entries.append(axis)
    used.add(axis)
  return PartitionSpec(*entries)


def shardings(
    tree: Any, axes: Mapping[str, Axes], mesh: jax.sharding.Mesh
) -> Any:
  """Shardings of every leaf of a tree that mirrors params (or holds mirrors).

  A leaf whose path ends in a param's name and that has as many dimensions
  (optimizer moments, EMA) is cut as that param; every other one is replicated.

  Args:
    tree: of arrays or ShapeDtypeStructs.
    axes: from `flat_axes`.
    mesh: the mesh.
  """

  def of(path, leaf):
    for start in range(len(path)):
      names = axes.get(key(path[start:]))
      if names is not None and len(names) == len(leaf.shape):
        return NamedSharding(mesh, spec(leaf.shape, names, mesh))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(of, tree)


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  """Host arrays (this process's share) as global arrays over (data, fsdp)."""
  rows = NamedSharding(mesh, sharding.BATCH)
  if jax.process_count() == 1:
    return jax.device_put(dict(batch), rows)
  # To the transfer guard this explicit transfer looks like an implicit one.
  with jax.transfer_guard('allow'):
    return {
        name: jax.make_array_from_process_local_data(rows, value)
        for name, value in batch.items()
    }
