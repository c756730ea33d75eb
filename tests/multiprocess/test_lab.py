"""Several processes fill one work directory of stages together."""

import multiprocessing

from audiolm_jax.lab import runner
from tests.lab import fake


def chain():
  data = fake.Fake(name='data')
  return data, [
      fake.Fake(name='model', inputs=(data,), effect=e) for e in (1.0, 2.0)
  ]


def _fill(path, text):
  _, models = chain()
  runner.Lab(path).run(runner.Shard.parse(text).of(models))
  runner.Lab(path).run(models)


def test_two_processes_fill_one_directory_together(tmp_path):
  context = multiprocessing.get_context('spawn')
  workers = [
      context.Process(target=_fill, args=(tmp_path, text))
      for text in ('0/2', '1/2')
  ]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join(120)
    assert worker.exitcode == 0
  data, models = chain()
  lab = runner.Lab(tmp_path)
  for stage in (data, *models):
    assert (lab.directory(stage) / 'runs').read_text() == 'x'
