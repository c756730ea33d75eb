"""Stages that are missing run once."""

import json

import pytest

from audiolm_jax import config
from audiolm_jax.lab import runner
from audiolm_jax.lab import stages
from audiolm_jax.training import locks
from tests.lab import fake


def runs(lab, stage) -> int:
  """How often a `Fake` ran."""
  return len((lab.directory(stage) / 'runs').read_text())


def chain():
  data = fake.Fake(name='data')
  models = [
      fake.Fake(name='model', inputs=(data,), effect=e) for e in (1.0, 2.0)
  ]
  return data, models


def test_shared_stages_run_once_and_finished_ones_never_again(tmp_path):
  data, models = chain()
  lab = runner.Lab(tmp_path)
  said = []
  lab.run(models, lambda left: said.append([s.name for s in left]))
  assert said == [['data', 'model', 'model'], ['model', 'model'], ['model']]
  assert [runs(lab, s) for s in (data, *models)] == [1, 1, 1]
  runner.Lab(tmp_path).run(models, lambda left: pytest.fail('ran again'))
  assert lab.metrics(models[1])['loss'] == 2.0
  facts = lab.result(models[0])
  assert facts['inputs'] == {'data': data.key}
  assert facts['libraries'].keys() >= {'jax', 'flax'}
  assert lab.seconds().keys() == {'data', 'model'}


def test_what_failed_is_run_again_and_nothing_before_it(tmp_path, monkeypatch):
  data, (model, _) = chain()
  lab = runner.Lab(tmp_path)
  works = fake.Fake.run

  def fails(stage, directory, inputs):
    if stage.name == 'model':
      raise stages.Interrupted('model')
    return works(stage, directory, inputs)

  monkeypatch.setattr(fake.Fake, 'run', fails)
  with pytest.raises(stages.Interrupted):
    lab.run([model])
  assert lab.result(data) and lab.result(model) is None
  with pytest.raises(config.ConfigError, match='has not finished'):
    lab.metrics(model)
  monkeypatch.undo()
  lab.run([model])
  assert runs(lab, data) == 1


@pytest.mark.parametrize(
    'content', [b'', b'{"key": ', b'[]', b'{}', b'{"key": "other"}']
)
def test_a_damaged_result_is_named(tmp_path, content):
  data, _ = chain()
  lab = runner.Lab(tmp_path)
  lab.run([data])
  path = lab.directory(data) / stages.RESULT
  path.write_bytes(content)
  with pytest.raises(config.ConfigError, match=f'{path} is damaged'):
    lab.run([data])


def test_cleared_checkpoints_are_made_again_where_they_are_needed(tmp_path):
  data, (model, other) = chain()
  lab = runner.Lab(tmp_path)
  lab.run([model])
  lab.clear(data)
  assert not (lab.directory(data) / 'checkpoints').exists()
  # Its metrics are still there, and what has finished does not need it.
  lab.run([model, data])
  assert runs(lab, data) == 1
  lab.run([other])
  assert runs(lab, data) == 2
  assert (lab.directory(data) / 'checkpoints').exists()
  assert json.loads((lab.directory(data) / stages.RESULT).read_text())


def test_a_stage_that_another_process_runs_is_waited_for(tmp_path, monkeypatch):
  data, (model, _) = chain()
  lab = runner.Lab(tmp_path)
  held = lab.workdir / 'locks' / data.folder
  held.mkdir(parents=True)
  waited = []
  with locks.hold(held):

    def sleep(seconds):
      # The other process finishes.
      waited.append(seconds)
      directory = lab.directory(data)
      directory.mkdir(parents=True, exist_ok=True)
      lab._finish(data, data.run(directory, {}), 1.0)

    monkeypatch.setattr(runner.time, 'sleep', sleep)
    lab.run([model])
  assert len(waited) == 1
  assert runs(lab, data) == 1


def test_shards_part_the_runs():
  parts = [runner.Shard.parse(f'{i}/3').of(range(8)) for i in range(3)]
  assert sorted(sum(parts, [])) == list(range(8))
  assert runner.Shard().of([1, 2]) == [1, 2]
  for text in ('', '2/2', '-1/2', '0/0', '1', 'a/b'):
    with pytest.raises(ValueError, match='expected i/n'):
      runner.Shard.parse(text)
