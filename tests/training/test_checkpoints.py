"""Save, restore, keep, choose the best, and say what is wrong."""

import shutil

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


@pytest.fixture
def random_store(tmp_path):
  """A checkpoint of numbers that do not compress, and its settings."""
  settings = checkpoints.Config(keep=2, best='eval/x')
  store = checkpoints.Checkpoints(tmp_path / 'c', settings)
  values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
  state = {'w': jnp.asarray(values), 'v': jnp.zeros(3)}
  for step, score in ((1, 2.0), (2, 1.0), (3, 3.0)):
    store.save(step, state, {'at': step}, {'eval/x': score})
  store.close()
  return tmp_path / 'c', settings, state


@pytest.mark.parametrize('bit', range(0, 8, 3))
def test_a_flipped_bit_is_noticed(random_store, bit):
  directory, settings, state = random_store
  (path,) = (directory / '2' / 'state' / 'ocdbt.process_0' / 'd').iterdir()
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1 << bit
  path.write_bytes(data)
  store = checkpoints.Checkpoints(directory, settings, read_only=True)
  with pytest.raises(
      checkpoints.CheckpointError, match='checkpoint 2.*w is not what was saved'
  ):
    store.restore(2, _abstract(state))
  # The others are whole.
  store.restore(3, _abstract(state))
  store.close()


def test_a_changed_position_is_noticed(random_store):
  directory, settings, state = random_store
  path = directory / '2' / '_CHECKPOINT_METADATA'
  text = path.read_text()
  position = r'{\"at\": 2}'
  assert position in text
  path.write_text(text.replace(position, position.replace('2', '3')))
  store = checkpoints.Checkpoints(directory, settings, read_only=True)
  with pytest.raises(checkpoints.CheckpointError, match='not what was saved'):
    store.restore(2, _abstract(state))
  store.close()


def test_what_is_not_finite_is_refused(store):
  state = _state(1.0)
  state['a']['w'] = state['a']['w'].at[1, 1].set(np.nan)
  store.save(1, state, None, {})
  store.wait()
  with pytest.raises(checkpoints.CheckpointError, match='a.w is not finite'):
    store.restore(1, _abstract(state))


def _no_metrics(directory):
  shutil.rmtree(directory / '2' / 'metrics')


def _other_metrics(directory):
  path = directory / '2' / 'metrics' / 'metrics'
  path.write_text(path.read_text().replace('1.0', '4.0'))


def _anothers(directory):
  """The checkpoint of a run that does not choose."""
  other = directory.parent / 'other'
  store = checkpoints.Checkpoints(other, checkpoints.Config())
  state = {'w': jnp.ones((64, 64)), 'v': jnp.zeros(3)}
  store.save(2, state, {'at': 2}, {'eval/x': 1.0})
  store.close()
  shutil.rmtree(directory / '2')
  shutil.copytree(other / '2', directory / '2')


@pytest.mark.parametrize('change', [_no_metrics, _other_metrics, _anothers])
def test_another_is_not_taken_for_the_best(random_store, change):
  directory, settings, _ = random_store
  store = checkpoints.Checkpoints(directory, settings, read_only=True)
  assert store.best() == 2
  store.close()
  change(directory)
  store = checkpoints.Checkpoints(directory, settings, read_only=True)
  with pytest.raises(checkpoints.CheckpointError, match='checkpoint 2'):
    store.best()
  store.close()
  # A run that goes on would choose, and remove others, by what it finds.
  with pytest.raises(checkpoints.CheckpointError, match='checkpoint 2'):
    checkpoints.Checkpoints(directory, settings)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"eval/x": 1', '\xff'])
def test_damaged_metrics_are_named(random_store, text):
  directory, settings, _ = random_store
  path = directory / '2' / 'metrics' / 'metrics'
  path.write_bytes(text.encode('latin-1'))
  with pytest.raises(checkpoints.CheckpointError, match=str(path)):
    checkpoints.Checkpoints(directory, settings, read_only=True)


def test_a_metric_that_is_no_number_does_not_compete(store):
  _fill(store, [float('nan'), 2.0])
  assert store.best() == 2


def test_what_a_killed_process_was_writing_is_removed(random_store):
  directory, settings, _ = random_store
  left = directory / '4.orbax-checkpoint-tmp'
  (left / 'state').mkdir(parents=True)
  checkpoints.Checkpoints(directory, settings, read_only=True).close()
  assert left.exists()
  store = checkpoints.Checkpoints(directory, settings)
  assert not left.exists() and store.steps() == [2, 3]
  store.close()


def test_what_could_not_be_written_is_told_and_removed(
    store, tmp_path, monkeypatch
):
  def full():
    raise ValueError('RESOURCE_EXHAUSTED: No space left on device')

  left = tmp_path / 'c' / '1.orbax-checkpoint-tmp'
  left.mkdir(parents=True)
  with monkeypatch.context() as patch:
    patch.setattr(store._checkpointer, 'wait', full)
    with pytest.raises(
        checkpoints.CheckpointError, match=f'{tmp_path}/c .*No space left'
    ):
      store.wait()
  assert not left.exists()


# -- leaves that never move ------------------------------------------------------


def _adapted(value, base=7.0):
  w = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
  w[0, 0] = base
  return {
      'frozen': {'lm': {'w': jnp.asarray(w)}},
      'trainable': {'lm': {'a': jnp.full((64, 2), value)}},
  }


@pytest.fixture
def adapted(tmp_path):
  """The directory of two checkpoints over one base."""
  store = checkpoints.Checkpoints(tmp_path / 'c', checkpoints.Config())
  for step in (1, 2):
    store.save(step, _adapted(step), None, {})
  store.close()
  return tmp_path / 'c'


def _restored(directory, step=2):
  store = checkpoints.Checkpoints(directory, checkpoints.Config())
  try:
    return store.restore(step, _abstract(_adapted(0)))[0]
  finally:
    store.close()


def test_what_never_moves_stands_once(adapted):
  for step in (1, 2):
    jax.tree.map(
        np.testing.assert_array_equal, _restored(adapted, step), _adapted(step)
    )
  size = {
      path.name: sum(p.stat().st_size for p in path.rglob('*') if p.is_file())
      for path in adapted.iterdir()
  }
  assert size['frozen'] > 200_000 > 10 * max(size['1'], size['2'])


def test_what_never_moves_is_held_against_its_checksum(adapted):
  store = checkpoints.Checkpoints(adapted.parent / 'd', checkpoints.Config())
  store.save(1, _adapted(1, base=8.0), None, {})
  store.close()
  shutil.rmtree(adapted / 'frozen')
  with pytest.raises(checkpoints.CheckpointError, match='missing: frozen.lm.w'):
    _restored(adapted)
  shutil.copytree(adapted.parent / 'd' / 'frozen', adapted / 'frozen')
  with pytest.raises(
      checkpoints.CheckpointError,
      match='frozen is damaged: frozen.lm.w is not what was saved.*Put it back',
  ):
    _restored(adapted)
  for path in (adapted / 'frozen').rglob('*'):
    if path.is_file():
      path.write_bytes(b'garbage')
  with pytest.raises(checkpoints.CheckpointError, match='frozen is damaged'):
    _restored(adapted)


def test_another_base_beside_checkpoints_is_refused(adapted):
  store = checkpoints.Checkpoints(adapted, checkpoints.Config())
  with pytest.raises(checkpoints.CheckpointError, match='put it back, or'):
    store.save(3, _adapted(3, base=8.0), None, {})
  store.close()


def test_a_base_without_checkpoints_is_replaced(adapted):
  """What a run left that was ended before its first checkpoint."""
  for step in (1, 2):
    shutil.rmtree(adapted / str(step))
  store = checkpoints.Checkpoints(adapted, checkpoints.Config())
  store.save(2, _adapted(2, base=8.0), None, {})
  store.close()
  assert float(_restored(adapted)['frozen']['lm']['w'][0, 0]) == 8
  shutil.rmtree(adapted / '2')
  store = checkpoints.Checkpoints(adapted, checkpoints.Config())
  store.save(1, {'trainable': jnp.zeros(2)}, None, {})
  store.close()
  assert not (adapted / 'frozen').exists()


def test_a_checkpoint_that_has_what_never_moves_itself(tmp_path, monkeypatch):
  """As all had once: the next ones get it beside them, and it stays readable."""
  directory = tmp_path / 'c'
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints, '_is_frozen', lambda name: False)
    store = checkpoints.Checkpoints(directory, checkpoints.Config(keep=3))
    store.save(1, _adapted(1), None, {})
    store.close()
  assert not (directory / 'frozen').exists()

  for step in (2, 3):
    store = checkpoints.Checkpoints(directory, checkpoints.Config(keep=3))
    state, _ = store.restore(1, _abstract(_adapted(0)))
    jax.tree.map(np.testing.assert_array_equal, state, _adapted(1))
    store.save(step, _adapted(step), None, {})
    store.close()
  for step in (1, 2, 3):
    jax.tree.map(
        np.testing.assert_array_equal,
        _restored(directory, step),
        _adapted(step),
    )
