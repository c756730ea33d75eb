"""Published answers are of the runs that their questions would make today."""

import dataclasses
import importlib
import json
import pathlib

import pytest

from audiolm_jax.lab import answering
from audiolm_jax.lab import pages
from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.lab import stages
from tests.lab import fake

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
PUBLISHED = pages.files(FOLDER, '*')
# ('NAME/results.json', arm) -> why its runs are of another config than today's, and why
# what they say still holds. Whoever changes a config asks the question again,
# or writes here why not.
STALE: dict[tuple[str, str], str] = {}


def stale(question: questions.Question, results: dict) -> dict[str, list[int]]:
  """Arm -> seeds whose run is not today's, or is missing on either side.

  Keys are of the versions of libraries that the results name, so that it is the
  config that is compared, whichever versions are installed.
  """
  running = runs_lib.Running(question, runner.Lab(pathlib.Path('unused')))
  points = {arm['name']: arm['chosen'] for arm in results['arms']}
  today = {
      (arm, seed): stage.key_with(results['libraries'])
      for arm, seed, stage in running.tests(
          {arm.name: points.get(arm.name, {}) for arm in question.arms}
      )
  }
  published = {
      (arm['name'], run['seed']): run['key']
      for arm in results['arms']
      for run in arm['runs']
  }
  found: dict[str, list[int]] = {}
  for arm, seed in sorted(today.keys() | published.keys()):
    if today.get((arm, seed)) != published.get((arm, seed)):
      found.setdefault(arm, []).append(seed)
  return found


def asked(name: str, variant: str) -> questions.Question:
  """The question that a file of results is of."""
  module = importlib.import_module(f'experiments.{name}')
  return module.question('cpu', *filter(None, [variant]))


@pytest.mark.parametrize(
    'path', PUBLISHED, ids=lambda path: f'{path.parent.name}-{path.name}'
)
def test_every_run_is_of_todays_config(path):
  name, results = path.parent.name, json.loads(path.read_text('utf-8'))
  assert results['question'] == name and results['missing'] == 0
  question = asked(name, results['variant'])
  known = {arm for of, arm in STALE if of == f'{name}/{path.name}'}
  found = stale(question, results)
  assert found.keys() == known, (
      f'{name}: the runs {found} in its {path.name} are not those that'
      ' experiments would make today. Ask it again (python -m experiments.run'
      f' --question={name} --budget=cpu --workdir=... --publish), or say in'
      ' STALE why its answer holds.'
  )


def test_what_is_excused_is_published():
  files = {f'{path.parent.name}/{path.name}' for path in PUBLISHED}
  assert {file for file, _ in STALE} <= files
  assert PUBLISHED


@pytest.fixture(scope='module')
def answered(tmp_path_factory):
  """A question of fakes and its results, of libraries that are not here."""
  question = fake.question({'a': 0.0, 'b': 1.0})
  it = runs_lib.Running(
      question,
      runner.Lab(tmp_path_factory.mktemp('lab')),
      say=lambda line: None,
  )
  names = [arm.name for arm in question.arms]
  planned = answering.Plan(
      question,
      {name: [] for name in names},
      {name: {} for name in names},
      {},
      dict.fromkeys(names, ''),
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stages, 'versions', lambda: {'jax': '0.1'})
    results = answering.answer(planned, it, it.run()).results
  assert results['libraries'] == {'jax': '0.1'}
  return question, json.loads(json.dumps(results))


def test_what_has_not_changed_is_not_stale_whichever_versions(answered):
  question, results = answered
  assert stale(fake.question({'a': 0.0, 'b': 1.0}), results) == {}
  assert stale(question, {**results, 'libraries': {'jax': '0.2'}}) == {
      'a': [1, 2, 3],
      'b': [1, 2, 3],
  }


def test_a_changed_arm_or_test_is_stale(answered, monkeypatch):
  question, results = answered
  seeds = [1, 2, 3]
  other = fake.question({'a': 0.0, 'b': 1.5})
  assert stale(other, results) == {'b': seeds}
  assert stale(fake.question({'a': 0.0}), results) == {'b': seeds}
  assert stale(fake.question({'a': 0.0, 'b': 1.0, 'c': 2.0}), results) == {
      'c': seeds
  }
  more = dataclasses.replace(question, seeds=4)
  assert stale(more, results) == {'a': [4], 'b': [4]}
  measured = dataclasses.replace(question, test=fake.measure('elsewhere'))
  assert stale(measured, results) == {'a': seeds, 'b': seeds}
  monkeypatch.setattr(fake.Fake, 'version', 2)
  assert stale(question, results) == {'a': seeds, 'b': seeds}
