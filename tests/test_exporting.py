"""WORKDIR/model/: what the checkpoint gives, whenever a run was killed."""

import json
import shutil

import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import exporting
from audiolm_jax import train
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.training import checkpoints
from tests import test_every_model
from tests import tool_module
from tests import toy_run

X = np.asarray(jax.random.normal(jax.random.key(0), (3, 5, 4)))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 12 steps; checkpoints at 9 and, the best, 12."""
  path = tmp_path_factory.mktemp('exporting') / 'whole'
  train.train(toy_run.config(), path)
  return path


def _manifest(path):
  return loading.stored(path).manifest


def _texts(path):
  return [p.read_bytes() for p in sorted((path / 'model').iterdir())]


def _codes(model):
  tokens = model.encode(0.1 * np.sin(np.arange(4000, dtype=np.float32)))
  return tokens, model.decode(tokens)


def _segments(model):
  given = {'text': np.ones((1, 4, 1), int), 'speech': np.ones((1, 6, 2), int)}
  lengths = {'text': np.array([4]), 'speech': np.array([6])}
  shown = {'text': np.array([2]), 'speech': np.array([1])}
  return model.generate(given, lengths, shown)


def _samples(model):
  context = {'film': np.ones((1, 3)), 'local': np.ones((1, 5, 2))}
  prompt, seconds = np.zeros((1, 2, 1)), 20 / model.sample_rate
  return model.generate(prompt, seconds, context=context)


# What people get of each kind of model, from tests/test_every_model.py.
OUTPUTS = {
    'toy': lambda model: model(X),
    'codec': _codes,
    'lm': lambda model: model.generate(np.ones((2, 3, 2), int), 9),
    'segments': _segments,
    'samples': _samples,
}


@pytest.mark.parametrize('name', sorted(OUTPUTS))
def test_a_model_of_each_kind_gives_what_its_checkpoint_gives(tmp_path, name):
  """Averaged parameters and state, without checkpoints, from elsewhere."""
  made = test_every_model.SMALL[name]()
  models = dict.fromkeys(
      jax.eval_shape(made.init, jax.random.key(0)),
      train.ModelTraining(ema=0.9),
  )
  settings = config.replace(
      toy_run.config(),
      {'objective': made, 'models': models, 'evaluators': {}},
  )
  settings = config.build(train.Config, settings)
  assembly = assembly_lib.Assembly(settings)
  state = assembly.create()
  # Averages, parameters and fresh state all differ.
  state = state.replace(
      ema=jax.tree.map(lambda x: x + 0.01, state.ema),
      model_state=jax.tree.map(lambda x: x + 1, state.model_state),
  )
  store = checkpoints.Checkpoints(
      tmp_path / 'run' / 'checkpoints', checkpoints.Config()
  )
  exporter = exporting.Exporter(assembly, tmp_path / 'run', store)
  store.save(0, state, None, {})
  exporter.stage(state)
  wanted = assembly.objective.bind(assembly.variables(state))
  assert not (tmp_path / 'run' / 'model').exists()
  store.close()
  exporter.publish()

  shutil.move(tmp_path / 'run' / 'model', tmp_path / 'elsewhere')
  shutil.rmtree(tmp_path / 'run')
  model = audiolm_jax.load(tmp_path / 'elsewhere')
  assert type(model) is type(wanted)
  for attribute in ('variables', 'params'):
    if hasattr(wanted, attribute):
      trees = getattr(model, attribute), getattr(wanted, attribute)
      jax.tree.map(np.testing.assert_array_equal, *trees)
  output = OUTPUTS[name]
  jax.tree.map(np.testing.assert_array_equal, output(model), output(wanted))
  if hasattr(wanted, 'fingerprint'):
    fingerprint = _manifest(tmp_path / 'elsewhere').fingerprint
    assert fingerprint == wanted.fingerprint()


def test_loading_builds_no_run(whole, tmp_path, monkeypatch):
  shutil.copytree(whole / 'model', tmp_path / 'x')
  monkeypatch.setattr(assembly_lib, 'Assembly', None)
  monkeypatch.setattr(assembly_lib, 'read', None)
  monkeypatch.chdir(tmp_path)
  assert audiolm_jax.load('x')(X).shape == (3, 5)


def test_it_is_of_the_best_checkpoint(whole, tmp_path):
  assert _manifest(whole).step == 12
  flags = ['config.checkpoint.mode=max', 'config.checkpoint.every=4']
  train.train(toy_run.config(*flags), tmp_path)
  # The error falls, so that the first has the largest.
  assert _manifest(tmp_path).step == 4
  _, state = assembly_lib.restore(tmp_path)
  assert int(state.step) == 4
  # It is made up for from there, not from the last one.
  texts = _texts(tmp_path)
  shutil.rmtree(tmp_path / 'model')
  train.train(toy_run.config(*flags), tmp_path)
  assert _texts(tmp_path) == texts


@pytest.mark.parametrize('where', ['stage', 'publish', 'is_finished', 'swap'])
@pytest.mark.parametrize('late', [False, True])
def test_a_killed_run_makes_up_for_it(
    whole, tmp_path, monkeypatch, where, late
):
  """Killed before or amid writing, between the renames, before the rename."""
  owners = {
      'stage': (directory.tensors, 'write'),
      'publish': (exporting.Exporter, 'publish'),
      'is_finished': (checkpoints.Checkpoints, 'is_finished'),
      'swap': (directory, 'swap'),
  }
  owner, name = owners[where]
  real, calls = getattr(owner, name), []

  def killed(*args):
    calls.append(args)
    if len(calls) > (1 if late else 0):
      if where == 'swap' and late and args[1].exists():
        args[1].rename(directory._aside(args[1]))
      raise KeyboardInterrupt
    return real(*args)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(owner, name, killed)
    train.train(toy_run.config(), tmp_path)
  steps = {
      int(p.name)
      for p in (tmp_path / 'checkpoints').glob('*')
      if p.name.isdigit()
  }
  if directory.located(tmp_path / 'model') is not None:
    # Never of a step that a run going on has still to get to.
    assert _manifest(tmp_path).step <= max(steps)
    audiolm_jax.load(tmp_path)
  train.train(toy_run.config(), tmp_path)
  assert _texts(tmp_path) == _texts(whole)
  assert not (tmp_path / 'model.new').exists()
  assert not (tmp_path / 'model.old').exists()


def test_a_damaged_one_is_written_anew(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'copy')
  (tmp_path / 'copy' / 'model' / 'config.json').write_text('{}')
  train.train(toy_run.config(), tmp_path / 'copy')
  assert _texts(tmp_path / 'copy') == _texts(whole)


def _adapted(whole, path, *flags):
  train.train(
      toy_run.config(
          'config.models.mlp.param_transform.kind=lora',
          'config.models.mlp.param_transform.rank=2',
          'config.steps=2',
          'config.evaluators={}',
          'config.checkpoint.best=None',
          *flags,
      ),
      path,
  )
  assembly, state = assembly_lib.restore(path)
  return assembly.objective.bind(assembly.variables(state))


def test_a_run_with_lora_writes_what_it_adds(whole, tmp_path):
  """Which leads back to its base; merging makes it whole."""
  shutil.copytree(whole, tmp_path / 'base')
  base = f'config.models.mlp.init_from={tmp_path}/base'
  wanted = _adapted(whole, tmp_path / 'lora', base)
  adapter = _manifest(tmp_path / 'lora').adapter
  assert adapter.fingerprint == _manifest(whole).fingerprint
  assert adapter.base == str(tmp_path / 'base')
  np.testing.assert_array_equal(
      audiolm_jax.load(tmp_path / 'lora')(X), wanted(X)
  )
  tool = tool_module.load('export_model')
  tool.main([str(tmp_path / 'lora'), '--merge', f'--out={tmp_path}/merged'])
  shutil.rmtree(tmp_path / 'base')
  merged = audiolm_jax.load(tmp_path / 'merged')
  assert _manifest(tmp_path / 'merged').adapter is None
  np.testing.assert_allclose(merged(X), wanted(X), rtol=1e-5, atol=1e-6)
  with pytest.raises(loading.ModelError, match='whole already'):
    exporting.merge(tmp_path / 'merged', tmp_path / 'again')


@pytest.mark.parametrize('base', ['none', 'without a model', 'another one'])
def test_without_its_base_it_is_written_whole(whole, tmp_path, base):
  flags = []
  if base != 'none':
    shutil.copytree(whole, tmp_path / 'base')
    flags = [f'config.models.mlp.init_from={tmp_path}/base']
  if base == 'without a model':
    shutil.rmtree(tmp_path / 'base' / 'model')
  if base == 'another one':
    exporting.export(tmp_path / 'base', step=9)
  wanted = _adapted(whole, tmp_path / 'lora', *flags)
  assert _manifest(tmp_path / 'lora').adapter is None
  shutil.rmtree(tmp_path / 'base', ignore_errors=True)
  found = audiolm_jax.load(tmp_path / 'lora')(X)
  np.testing.assert_allclose(found, wanted(X), rtol=1e-5, atol=1e-6)


def test_a_run_starts_from_a_model_directory(whole, tmp_path):
  shutil.copytree(whole / 'model', tmp_path / 'model')
  flags = ['config.models.mlp.schedule.learning_rate=0.0']
  flags += [f'config.models.mlp.init_from={tmp_path}/model']
  wanted = _adapted(whole, tmp_path / 'a', *flags)
  base = audiolm_jax.load(whole)

  def params_alone(model):
    return model(X) - model.variables['state']['mean']

  np.testing.assert_allclose(
      params_alone(wanted), params_alone(base), rtol=1e-5, atol=1e-6
  )
  assert _manifest(tmp_path / 'a').adapter.base == str(tmp_path / 'model')
  with pytest.raises(config.ConfigError, match="holds 'mlp', not 'other'"):
    _adapted(
        whole, tmp_path / 'b', *flags, 'config.models.mlp.init_model=other'
    )


def test_the_tool_makes_one_of_an_old_work_directory(whole, tmp_path, capsys):
  shutil.copytree(whole, tmp_path / 'old')
  shutil.rmtree(tmp_path / 'old' / 'model')
  with pytest.raises(loading.ModelError, match='export_model.py'):
    audiolm_jax.load(tmp_path / 'old')
  tool = tool_module.load('export_model')
  tool.main([str(tmp_path / 'old')])
  assert capsys.readouterr().out == f'{tmp_path}/old/model\n'
  assert _texts(tmp_path / 'old') == _texts(whole)
  tool.main([str(whole), '--step=9', f'--out={tmp_path}/nine'])
  assert _manifest(tmp_path / 'nine').step == 9
  # What is no model is not replaced.
  (tmp_path / 'mine').mkdir()
  with pytest.raises(
      loading.ModelError, match='mine is there, and is no model'
  ):
    exporting.export(whole, tmp_path / 'mine')
  for wrong in (['--merge'], ['--base=x'], ['--merge', '--out=x', '--step=1']):
    with pytest.raises(SystemExit):
      tool.main([str(whole), *wrong])
  assert json.loads((whole / 'model' / 'config.json').read_text())['step'] == 12
