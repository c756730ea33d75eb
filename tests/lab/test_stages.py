"""Stages: keys, chains, changes, and what a stage writes."""

import dataclasses
import json
import pathlib

import pytest

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.lab import stages
from tests import toy_run
from tests.lab import fake


def twice(directory, inputs, number, source):
  """A function for a stage."""
  assert inputs['data'] == pathlib.Path(source)
  (directory / 'made').write_text(str(2 * number))
  return {'metrics': {'twice': 2.0 * number}}


def train(**changes):
  changes = {'evaluators': {}, 'checkpoint.best': None, **changes}
  return stages.Train(
      name='model', config=config.replace(toy_run.config(), changes)
  )


def test_a_key_is_of_values_inputs_versions_and_kind(monkeypatch):
  data = fake.Fake(name='data')
  stage = fake.Fake(name='model', inputs=(data,))
  same = fake.Fake(name='model', inputs=(fake.Fake(name='data'),))
  assert stage.key == same.key
  others = [
      dataclasses.replace(stage, effect=1.0),
      dataclasses.replace(stage, inputs=(dataclasses.replace(data, seed=1),)),
      dataclasses.replace(stage, inputs=()),
  ]
  keys = {stage.key, *[other.key for other in others]}
  assert len(keys) == 4
  versions = stages.versions()
  assert stage.key_with(dict(reversed(versions.items()))) == stage.key
  assert stage.key_with({**versions, 'jax': '0.1'}) not in keys
  monkeypatch.setattr(fake.Fake, 'version', 2)
  assert dataclasses.replace(stage).key not in keys


def test_the_name_is_no_part_of_what_a_stage_does_but_of_its_folder():
  one, other = fake.Fake(name='a'), fake.Fake(name='b')
  assert one.key == other.key and one.folder != other.folder


def test_changes_reach_a_stage_anywhere_in_the_chain():
  data = fake.Fake(name='data')
  model = fake.Fake(name='model', inputs=(data,))
  test = fake.Read(name='test', inputs=(model,))
  changed = test.with_changes({'data': {'seed': 3}, 'model': {'rate': 2.0}})
  assert changed.chain['data'].seed == 3
  assert changed.chain['model'].rate == 2.0
  assert list(changed.chain) == ['data', 'model', 'test']
  assert test.chain['data'].seed == 0
  with pytest.raises(stages.StageError, match="no stage .'nope'."):
    test.with_changes({'nope': {}})
  with pytest.raises(stages.StageError, match='no fields to change'):
    test.with_changes({'test': {'split': 'x'}})


def test_a_shared_input_is_changed_wherever_it_is_read():
  data = fake.Fake(name='data')
  one = fake.Fake(name='one', inputs=(data,))
  both = fake.Fake(name='both', inputs=(data, one))
  changed = both.with_changes({'data': {'seed': 3}})
  assert {s.seed for s in (changed.inputs[0], changed.inputs[1].inputs[0])} == {
      3
  }


def test_two_stages_of_one_name_are_refused():
  one = fake.Fake(name='data')
  model = fake.Fake(name='model', inputs=(one,))
  other = fake.Fake(name='data', seed=1)
  with pytest.raises(stages.StageError, match="two stages called 'data'"):
    fake.Fake(name='x', inputs=(model, other))
  with pytest.raises(stages.StageError, match='of the same name'):
    fake.Fake(name='model', inputs=(model,))
  with pytest.raises(stages.StageError, match='expected letters'):
    fake.Fake(name='a/b')


def test_an_output_of_a_stage_that_is_no_input_is_refused():
  line = ('x.py', f'--data={stages.output("data")}')
  with pytest.raises(stages.StageError, match="reads .'data'."):
    stages.Command(name='run', lines=(line,))


def test_training_and_evaluation_are_stages(tmp_path):
  stage = train(steps=4)
  with pytest.raises(stages.StageError, match='evaluate in a stage'):
    stages.Train(name='model', config=toy_run.config())
  result = stage.run(tmp_path / 'model', {})
  assert result['metrics']['loss'] > 0
  test = stages.Evaluate(
      name='test', inputs=(stage,), evaluators={'toy': evaluation.ToyError()}
  )
  assert test.values()['evaluators']['toy']['kind'] == 'toy'
  result = test.run(tmp_path / 'test', {'model': tmp_path / 'model'})
  assert result['metrics']['eval/toy/squared_error'] > 0
  assert (tmp_path / 'test' / 'evaluations' / '0_toy.jsonl').exists()


def test_a_training_that_was_interrupted_has_not_finished(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(stages.train, 'train', lambda *_: {'loss': 1.0})
  with pytest.raises(stages.Interrupted):
    train().run(tmp_path, {})


def test_a_wrong_field_is_named_with_the_nearest(tmp_path):
  del tmp_path
  with pytest.raises(config.ConfigError, match='Did you mean config.steps'):
    train().with_changes({'model': {'step': 3}})


def test_a_command_writes_where_it_is_told(tmp_path, capfd):
  data = fake.Fake(name='data')
  line = ('-c', 'import sys; open(sys.argv[1], "w").write(sys.argv[2])')
  line += ('{out}/made', stages.output('data') + '/x')
  stage = stages.Command(name='made', inputs=(data,), lines=(line,))
  assert stage.run(tmp_path, {'data': pathlib.Path('/data')}) == {}
  assert (tmp_path / 'made').read_text() == '/data/x'
  assert '$ python -c' in capfd.readouterr().out
  failing = stages.Command(name='made', lines=(('-c', 'raise SystemExit(3)'),))
  with pytest.raises(stages.StageError, match='status 3'):
    failing.run(tmp_path, {})


def test_a_function_is_keyed_by_its_module_and_arguments(tmp_path):
  data = fake.Fake(name='data')
  stage = stages.Function(
      name='twice',
      inputs=(data,),
      function=twice,
      arguments={'number': 2, 'source': stages.output('data')},
  )
  result = stage.run(tmp_path, {'data': tmp_path})
  assert result == {'metrics': {'twice': 4.0}}
  assert (tmp_path / 'made').read_text() == '4'
  other = stage.with_changes({'twice': {'number': 3}})
  assert other.key != stage.key
  assert stage.values()['function'] == f'{__name__}:twice'
  with pytest.raises(stages.StageError, match='top of a module'):
    stages.Function(name='inner', function=lambda *_: {}, arguments={})


def test_several_stages_are_read_as_one(tmp_path):
  one, two = (fake.Fake(name=name) for name in ('one', 'two'))
  both = stages.Together(name='both', inputs=(one, two))
  inputs = {name: tmp_path / name for name in ('one', 'two')}
  given = {
      'one': {'metrics': {'a': 1.0}, 'curves': {'c': [[0, 1]]}},
      'two': {'metrics': {'b': 2.0}},
  }
  for name, result in given.items():
    inputs[name].mkdir()
    (inputs[name] / stages.RESULT).write_text(json.dumps({'result': result}))
  assert both.run(tmp_path, inputs) == {
      'metrics': {'a': 1.0, 'b': 2.0},
      'curves': {'c': [[0, 1]]},
  }
  clash = {'result': {'metrics': {'a': 3.0}}}
  (inputs['two'] / stages.RESULT).write_text(json.dumps(clash))
  with pytest.raises(stages.StageError, match=r"several inputs give \['a'\]"):
    both.run(tmp_path, inputs)
