"""Constraints in programs for several devices, and nothing anywhere else."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from audiolm_jax.ops import sharding

FREE = PartitionSpec.UNCONSTRAINED
ROWS = ('data', 'fsdp')


def _mesh(*sizes, **options):
  auto = (jax.sharding.AxisType.Auto,) * len(sizes)
  return jax.sharding.AbstractMesh(
      sizes, sharding.AXES, axis_types=auto, **options
  )


def _traced(function, mesh, *shapes):
  """{primitive: parameters} of a function traced for a mesh."""
  with jax.sharding.use_abstract_mesh(mesh):
    jaxpr = jax.make_jaxpr(function)(*map(jnp.zeros, shapes))
  return {e.primitive.name: e.params for e in jaxpr.jaxpr.eqns}


def _spec(names, shape, sizes=(2, 4, 1)):
  found = _traced(lambda x: sharding.constrain(x, names), _mesh(*sizes), shape)
  return found['sharding_constraint']['sharding'].spec


def test_rows_are_spread_and_the_rest_is_free():
  assert _spec(('batch',), (8, 3, 5)) == PartitionSpec(ROWS, FREE, FREE)


def test_named_axes_are_whole_or_cut():
  names = ('batch', 'activation_length', 'activation_vocab')
  assert _spec(names, (16, 4, 6), (2, 2, 2)) == PartitionSpec(
      ROWS, None, 'tensor'
  )


def test_what_does_not_divide_is_free():
  assert _spec(('batch', None), (6, 3)) == PartitionSpec(FREE, None)


@pytest.mark.parametrize('function', ['constrain', 'whole', 'by_rows'])
def test_one_device_sees_nothing(function):
  call = {
      'constrain': lambda x: sharding.constrain(x, ('batch',)),
      'whole': sharding.whole,
      'by_rows': lambda x: sharding.by_rows(lambda y: y, x),
  }[function]
  x = jnp.zeros((8, 2))
  assert call(x) is x
  assert not _traced(call, _mesh(1, 1, 1), x.shape)
  assert _traced(call, _mesh(2, 1, 1), x.shape)


def test_unknown_names_are_told_on_one_device_too():
  with pytest.raises(KeyError, match='btach'):
    sharding.constrain(jnp.zeros(8), ('btach',))


def test_no_activation_is_cut_as_weights_are_gathered():
  shared = {
      name
      for name, axes in sharding.RULES.items()
      if 'fsdp' in np.atleast_1d(axes) and name.startswith('activation')
  }
  assert not shared


def test_rows_that_do_not_divide_are_computed_as_ever():
  def sort(x):
    return sharding.by_rows(lambda y: jnp.sort(y, axis=1), x)

  assert 'shard_map' in _traced(sort, _mesh(2, 2, 1), (4, 3))
  assert 'shard_map' not in _traced(sort, _mesh(2, 2, 1), (6, 3))


def test_the_platform_is_that_of_the_mesh():
  assert sharding.platform() == jax.default_backend()
  device = jax.sharding.AbstractDevice('TPU v5e', 1, 'tpu')
  with jax.sharding.use_abstract_mesh(_mesh(2, 1, 1, abstract_device=device)):
    assert sharding.platform() == 'tpu'
