"""The loop: order, resume, signals, refusals, and no waits within it."""

import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluate
from audiolm_jax import evaluation
from audiolm_jax import ops
from audiolm_jax import train
from audiolm_jax.data import synthetic
from audiolm_jax.evaluation import toy as toy_evaluation
from audiolm_jax.training import checkpoints
from audiolm_jax.training import writers
from tests import toy_run


class Killed(Exception):
  """Stands for a kill at some batch."""


def _records(workdir):
  return [
      {k: v for k, v in record.items() if not k.startswith('time/')}
      for record in writers.read_metrics(workdir)
  ]


def _state(workdir, step=None):
  return assembly_lib.restore(workdir, step)[1]


def _assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole')
  results = train.train(toy_run.config(), workdir)
  return workdir, results


def _kill_at(monkeypatch, position):
  """Raises where the batch at `position` is asked for."""
  opened = synthetic._Source.next

  def dying(self, state):
    if self._position == position:
      raise Killed
    return opened(self, state)

  monkeypatch.setattr(synthetic._Source, 'next', dying)


def test_it_learns_and_leaves_a_describing_directory(whole):
  workdir, results = whole
  assert results['cost/flops_a_step'] > 0
  records = _records(workdir)
  assert records[0]['cost/flops_a_step'] == results['cost/flops_a_step']
  errors = [
      r['eval/toy/squared_error']
      for r in records
      if 'eval/toy/squared_error' in r
  ]
  assert len(errors) == 3 and errors[-1] < errors[0]
  assert [r['step'] for r in records if 'loss' in r] == [2, 4, 6, 8, 10, 12]
  ids = [r['ids'] for r in records if 'ids' in r]
  assert np.array_equal(np.concatenate(ids), np.arange(12 * 16))
  assert (workdir / 'config.json').exists()
  scores = (workdir / 'evaluations' / '12_toy.jsonl').read_text().splitlines()
  assert json.loads(scores[0])['item'] == 'item0'


@pytest.mark.parametrize('position', [2, 3, 7, 11])
def test_a_run_killed_anywhere_equals_one_that_was_not(
    whole, tmp_path, monkeypatch, position
):
  with monkeypatch.context() as patch:
    _kill_at(patch, position)
    with pytest.raises(Killed):
      train.train(toy_run.config(), tmp_path)
  results = train.train(toy_run.config(), tmp_path)
  assert results['loss'] == whole[1]['loss']
  assert _records(tmp_path) == _records(whole[0])
  _assert_same(_state(tmp_path, 12), _state(whole[0], 12))


def test_starting_again_at_the_end_changes_nothing(whole):
  before = _records(whole[0])
  train.train(toy_run.config(), whole[0])
  assert _records(whole[0]) == before


def test_a_signal_saves_and_stops(whole, tmp_path, monkeypatch):
  opened = synthetic._Source.next

  def signalling(self, state):
    if self._position == 4:
      os.kill(os.getpid(), signal.SIGTERM)
    return opened(self, state)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(synthetic._Source, 'next', signalling)
    train.train(toy_run.config(), tmp_path)
  assert signal.getsignal(signal.SIGTERM) is before
  assert int(_state(tmp_path).step) == 5
  train.train(toy_run.config(), tmp_path)
  assert _records(tmp_path) == _records(whole[0])
  _assert_same(_state(tmp_path, 12), _state(whole[0], 12))


def test_another_config_is_refused(whole):
  with pytest.raises(config.ConfigError) as error:
    train.train(toy_run.config('config.seed=3'), whole[0])
  assert 'config.seed: 0 -> 3' in str(error.value)


def test_not_finite_stops_and_names(tmp_path):
  with pytest.raises(train.NotFiniteError) as error:
    train.train(toy_run.config('config.data.nan_at=7'), tmp_path)
  text = str(error.value)
  assert 'Step 8 ' in text and 'term/error' in text
  assert 'gradient/mlp/blocks' in text and 'checkpoints/6' in text
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(_state(tmp_path)))
  # Nothing of the broken step was written.
  assert max(r['step'] for r in _records(tmp_path)) <= 7


def test_a_batch_that_does_not_fit_is_told_before_compiling(tmp_path):
  with pytest.raises(config.ConfigError) as error:
    train.train(toy_run.config('config.data.features=3'), tmp_path)
  assert 'x is float32[16, 5, 3], expected float32[16, 5, 4]' in str(
      error.value
  )


def test_a_best_that_evaluation_does_not_give_is_refused(whole, tmp_path):
  flag = 'config.checkpoint.best=eval/toy/nope'
  with pytest.raises(config.ConfigError) as error:
    train.train(toy_run.config(flag), tmp_path)
  assert "'eval/toy/nope'" in str(error.value)
  assert "gave ['eval/toy/squared_error']" in str(error.value)
  # Nothing is lost, and the run goes on as the message says.
  path = tmp_path / 'config.json'
  path.write_text(path.read_text().replace('toy/nope', 'toy/squared_error'))
  results = train.train(toy_run.config(), tmp_path)
  assert results['loss'] == whole[1]['loss']


@pytest.mark.parametrize('log_every', [5, 16, 20, 33])
def test_rates_are_of_the_steps_since_the_last_record(
    tmp_path, monkeypatch, log_every
):
  """By a clock that a step moves on by one."""
  noted = []
  note = train._Run._note

  def noting(self, step, *rest):
    noted.append(step)
    note(self, step, *rest)

  monkeypatch.setattr(train._Run, '_note', noting)
  monkeypatch.setattr(writers.time, 'perf_counter', lambda: len(noted))
  values = toy_run.config('config.steps=101', f'config.log_every={log_every}')
  changes = {'evaluators': {}, 'eval_every': 200}
  changes |= {'checkpoint.every': 200, 'checkpoint.best': None}
  train.train(config.replace(values, changes), tmp_path)
  # The first also waits for the step after it, the last does not.
  rates = [
      record['time/steps_per_second']
      for record in writers.read_metrics(tmp_path)
      if 'time/steps_per_second' in record
  ]
  assert len(rates) == -(-101 // log_every)
  assert rates[1:-1] == [1.0] * (len(rates) - 2)


def test_models_are_those_of_the_objective():
  settings = toy_run.config()
  both = {**settings.models, 'other': settings.models['mlp']}
  with pytest.raises(config.ConfigError, match="'other'.*'mlp'"):
    assembly_lib.Assembly(config.replace(settings, {'models': both}))


def test_load_gives_the_best_averaged_model(whole):
  workdir, _ = whole
  model = audiolm_jax.load(workdir)
  state = _state(workdir)
  jax.tree.map(
      np.testing.assert_array_equal,
      model.variables['params'],
      state.ema['mlp'],
  )
  assert model(np.zeros((3, 5, 4), np.float32)).shape == (3, 5)


def test_evaluation_without_training_gives_the_same_numbers(whole):
  workdir, results = whole
  alone = evaluate.evaluate(workdir)
  name = 'eval/toy/squared_error'
  assert alone[name] == pytest.approx(results[name], rel=1e-6)


def test_the_best_checkpoint_is_by_the_metric_of_its_own_step(whole):
  """Not of an earlier evaluation: checkpoints at 3, 6, 9 have none."""
  steps = [
      int(p.name)
      for p in (whole[0] / 'checkpoints').iterdir()
      if p.name.isdigit()
  ]
  assert set(steps) == {9, 12}
  settings = toy_run.config().checkpoint
  store = checkpoints.Checkpoints(whole[0] / 'checkpoints', settings, True)
  assert store.best() == 12
  scored = [c.step for c in store._checkpointer.checkpoints if c.metrics]
  assert scored == [12]
  store.close()


def test_load_without_a_checkpoint(tmp_path):
  with pytest.raises(config.ConfigError, match='no work directory'):
    audiolm_jax.load(tmp_path)
  (tmp_path / 'config.json').write_text(config.to_json(toy_run.config()))
  with pytest.raises(config.ConfigError, match='has no model/ yet'):
    audiolm_jax.load(tmp_path)
  with pytest.raises(checkpoints.CheckpointError, match='no checkpoint'):
    assembly_lib.restore(tmp_path)


def test_a_run_starts_from_anothers_parameters(whole, tmp_path):
  flags = (
      f'config.models.mlp.init_from={whole[0]}',
      'config.models.mlp.param_transform.kind=lora',
      'config.models.mlp.schedule.learning_rate=0.0',
      'config.steps=1',
  )
  train.train(toy_run.config(*flags), tmp_path / 'b')
  new, old = audiolm_jax.load(tmp_path / 'b'), audiolm_jax.load(whole[0])
  leaves = jax.tree.leaves(
      new.variables['params'],
      is_leaf=lambda x: isinstance(x, ops.LoraTensor),
  )
  assert any(isinstance(leaf, ops.LoraTensor) for leaf in leaves)
  x = np.asarray(jax.random.normal(jax.random.key(0), (3, 5, 4)))

  # Its state goes on moving, so compare the parameters' part.
  def mean(m):
    return m.variables['state']['mean']

  np.testing.assert_allclose(
      new(x) - mean(new), old(x) - mean(old), rtol=1e-5, atol=1e-6
  )


def test_starting_from_other_shapes_names_them(whole, tmp_path):
  flags = (
      f'config.models.mlp.init_from={whole[0]}',
      'config.objective.width=4',
  )
  with pytest.raises(config.ConfigError) as error:
    train.train(toy_run.config(*flags), tmp_path)
  assert (
      'mis-shaped: params.blocks.kernel is (2, 8, 8), expected (2, 4, 4)'
      in (str(error.value))
  )


def test_order_is_evaluate_checkpoint_batch_step(tmp_path, monkeypatch):
  events = []

  def spy(owner, name, label):
    real = getattr(owner, name)

    def spied(*args, **kwargs):
      events.append(label)
      return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, spied)

  spy(train._Run, '_next', 'batch')
  spy(train._Run, '_note', 'step')
  spy(toy_evaluation._Evaluator, 'run', 'evaluate')
  spy(checkpoints.Checkpoints, 'save', 'checkpoint')
  train.train(
      toy_run.config('config.steps=4', 'config.checkpoint.every=2'), tmp_path
  )
  step = ['batch', 'step']
  assert events == [
      *step, *step, 'checkpoint', *step, *step, 'evaluate', 'checkpoint'
  ]  # fmt: skip


def test_the_host_waits_for_the_device_at_logs_only(tmp_path, monkeypatch):
  """Counts reads of device values within the loop, asked for or implicit."""
  array = type(jnp.zeros(()))
  depth = {'loop': 0, 'get': 0}
  counts = {'get': 0, 'implicit': 0, 'wait': 0}

  def within(name, function):
    def wrapped(*args):
      depth[name] += 1
      try:
        return function(*args)
      finally:
        depth[name] -= 1

    return wrapped

  def counted(name, function):
    def wrapped(*args):
      counts[name] += depth['loop'] > 0 and (name == 'get' or not depth['get'])
      return function(*args)

    return wrapped

  value = array._value.fget
  get = counted('get', within('get', jax.device_get))
  monkeypatch.setattr(jax, 'device_get', get)
  monkeypatch.setattr(array, '_value', property(counted('implicit', value)))
  for name in ('block_until_ready', 'is_ready'):
    wait = counted('wait', getattr(array, name))
    monkeypatch.setattr(array, name, wait)
  loop = within('loop', train._Run._loop)
  # A function, so that it binds.
  monkeypatch.setattr(train._Run, '_loop', lambda *args: loop(*args))
  monkeypatch.setattr(train._Run, '_save', lambda self, state, step: None)
  values = toy_run.config('config.steps=40', 'config.log_every=10')
  changes = {'evaluators': {}, 'checkpoint.best': None, 'eval_every': 100}
  train.train(config.replace(values, changes), tmp_path)
  # After steps 11, 21 and 31, and at the end.
  assert counts == {'get': 4, 'implicit': 0, 'wait': 0}
  # The counter counts.
  counted_loop = within('loop', lambda: float(jnp.ones(()) + 1))
  counted_loop()
  assert counts['implicit'] == 1


@pytest.mark.parametrize('steps', [2, 100])
def test_profile_is_written(tmp_path, steps):
  flags = ('config.profile.start=2', f'config.profile.steps={steps}')
  train.train(toy_run.config(*flags), tmp_path)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_registries_hold_what_configs_name():
  assert data.SOURCES['synthetic'] is synthetic.Synthetic
  assert evaluation.EVALUATORS['toy'] is toy_evaluation.ToyError
  assert len(list(itertools.chain(data.SOURCES, evaluation.EVALUATORS))) >= 2
