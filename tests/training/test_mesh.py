"""Logical axes become shardings by one table."""

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.objectives import toy
from audiolm_jax.ops import sharding
from audiolm_jax.training import mesh as mesh_lib


@pytest.fixture(scope='module')
def grid():
  """Shapes only: no such devices are needed to make specs."""
  auto = (jax.sharding.AxisType.Auto,) * 3
  return jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES, axis_types=auto)


def test_spec_uses_the_table(grid):
  spec = mesh_lib.spec((3, 8, 6), ('layers', 'embed', 'mlp'), grid)
  assert spec == PartitionSpec(None, 'fsdp', 'tensor')


def test_what_does_not_divide_stays_whole(grid):
  assert mesh_lib.spec((8, 5), ('embed', 'mlp'), grid) == PartitionSpec(
      'fsdp', None
  )


def test_no_mesh_axis_is_used_twice(grid):
  assert mesh_lib.spec((8, 8), ('embed', 'channels_in'), grid) == PartitionSpec(
      'fsdp', None
  )


def test_rules_name_mesh_axes_only():
  named = {a for axes in sharding.RULES.values() for a in np.atleast_1d(axes)}
  assert named - {None} == set(sharding.AXES)


def test_axes_come_from_the_boxes_under_scan():
  boxed = jax.eval_shape(toy.Toy().init, jax.random.key(0))
  axes = mesh_lib.flat_axes(mesh_lib.logical_axes(boxed['mlp']['params']))
  assert axes['blocks.kernel'] == ('layers', 'embed', 'mlp')
  assert axes['blocks.bias'] == ('layers', 'mlp')
  assert axes['output'] == ('mlp', None)
  shapes = nn.meta.unbox(boxed['mlp']['params'])
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    assert len(axes[mesh_lib.key(path)]) == leaf.ndim


def test_sizes_must_multiply_to_the_devices():
  n = jax.device_count()
  assert mesh_lib.Config().build().shape == {'data': n, 'fsdp': 1, 'tensor': 1}
  for wrong in (mesh_lib.Config(data=n + 1), mesh_lib.Config(data=-1, fsdp=-1)):
    with pytest.raises(config.ConfigError, match='config.mesh'):
      wrong.build()


def test_leaves_are_named_in_the_trees_order():
  tree = {'b': [1, {'x': 2}], 'a': (3,)}
  flat = mesh_lib.flat(tree)
  assert flat == {'a.0': 3, 'b.0': 1, 'b.1.x': 2}
  assert list(flat.values()) == jax.tree.leaves(tree)
