"""Save, restore, keep, choose the best, and say what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.training import checkpoints


def _state(value):
  return {
      'a': {'w': jnp.full((3, 2), value)},
      'hole': None,
      'n': jnp.int32(value),
  }


def _abstract(tree):
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      tree,
  )


@pytest.fixture
def store(tmp_path):
  settings = checkpoints.Config(keep=2, best='eval/x', mode='min')
  store = checkpoints.Checkpoints(tmp_path / 'c', settings)
  yield store
  store.close()


def _fill(store, scores):
  for step, score in enumerate(scores, 1):
    store.save(step, _state(step), {'position': [step]}, {'eval/x': score})
  store.wait()


def test_round_trip_with_holes(store):
  _fill(store, [1.0])
  state, position = store.restore(1, _abstract(_state(0)))
  jax.tree.map(np.testing.assert_array_equal, state, _state(1))
  assert state['hole'] is None and position == {'position': [1]}


def test_the_latest_and_the_best_are_kept(store):
  _fill(store, [3.0, 1.0, 2.0, 5.0, 4.0])
  assert store.steps() == [2, 4, 5]
  assert store.latest() == 5 and store.best() == 2


def test_the_largest_is_best_where_asked(tmp_path):
  settings = checkpoints.Config(keep=1, best='eval/x', mode='max')
  store = checkpoints.Checkpoints(tmp_path / 'c', settings)
  _fill(store, [1.0, 3.0, 2.0])
  assert store.steps() == [2, 3] and store.best() == 2
  store.close()


def test_without_a_metric_the_latest_is_best(tmp_path):
  store = checkpoints.Checkpoints(tmp_path / 'c', checkpoints.Config())
  _fill(store, [1.0, 3.0, 2.0])
  assert store.steps() == [2, 3] and store.best() == 3
  store.close()


def test_saving_survives_donation(store):
  """What the next step overwrites must not reach the file."""
  bump = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = {'w': jnp.zeros((256, 1024))}
  abstract = _abstract(state)
  store.save(1, state, None, {})
  for _ in range(20):
    state = bump(state)
  store.wait()
  assert not np.any(store.restore(1, abstract)[0]['w'])


def test_a_wrong_state_is_named(store):
  _fill(store, [1.0])
  other = {'a': {'w': jnp.zeros((2, 2))}, 'b': jnp.zeros(1)}
  with pytest.raises(checkpoints.CheckpointError) as error:
    store.restore(1, _abstract(other))
  text = str(error.value)
  assert 'missing: b' in text and 'left over: n' in text
  assert 'mis-shaped: a.w is (3, 2), expected (2, 2)' in text


def test_an_absent_or_damaged_one_is_named(store, tmp_path):
  _fill(store, [1.0])
  with pytest.raises(checkpoints.CheckpointError, match='does not exist'):
    store.restore(7, _abstract(_state(0)))
  for path in (tmp_path / 'c' / '1' / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'garbage')
  with pytest.raises(
      checkpoints.CheckpointError, match='checkpoint 1.*damaged'
  ):
    store.restore(1, _abstract(_state(0)))
