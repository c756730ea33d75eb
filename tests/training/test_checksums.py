"""Checksums see every change, and hold whole arrays against their blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.training import checksums


def _leaves():
  return {
      'w': jnp.arange(12, dtype=jnp.float32).reshape(3, 4),
      'b': jnp.arange(5, dtype=jnp.bfloat16),
      'n': jnp.int32(7),
      'e': jnp.zeros((0, 2)),
  }


def test_the_same_is_no_problem():
  leaves = _leaves()
  assert checksums.problems(leaves, checksums.of_leaves(leaves)) == []


@pytest.mark.parametrize('name,index', [('w', (2, 3)), ('b', (0,)), ('n', ())])
def test_a_change_is_named(name, index):
  leaves = _leaves()
  stored = checksums.of_leaves(leaves)
  leaves[name] = leaves[name].at[index].add(1)
  assert checksums.problems(leaves, stored) == [f'{name} is not what was saved']


def test_what_is_not_finite_is_named():
  leaves = _leaves() | {'w': jnp.full((2, 2), jnp.inf)}
  expected = ['w is not finite']
  assert checksums.problems(leaves, checksums.of_leaves(leaves)) == expected
  # Without checksums too.
  assert checksums.problems(leaves, {}) == expected


def test_blocks_that_were_cut_otherwise():
  """As stored by four devices, which are held against one here."""
  leaves = _leaves()
  whole = np.asarray(leaves['w'])
  stored = checksums.of_leaves(leaves)
  (one,) = checksums.of_leaves({'x': jnp.asarray(whole[:2, 2:])})['x'].values()
  (two,) = checksums.of_leaves({'x': jnp.asarray(whole[2:, 2:])})['x'].values()
  stored['w'] = {'0:2,2:4': one, '2:3,2:4': two}
  assert checksums.problems(leaves, stored) == []
  leaves['w'] = leaves['w'].at[2, 2].add(1)
  assert checksums.problems(leaves, stored) == ['w is not what was saved']


def test_json_has_no_order():
  assert checksums.of_json({'a': [1], 'b': 0.1}) == checksums.of_json(
      {'b': 0.1, 'a': [1]}
  )
  assert checksums.of_json({'a': 1}) != checksums.of_json({'a': 2})
