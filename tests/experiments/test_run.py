"""experiments/run.py as a command, and the least question by it."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

from audiolm_jax.lab import answering
from audiolm_jax.lab import pages
from audiolm_jax.lab import plots
from experiments import overview

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / 'experiments'
ASKED = sorted(p.parent.name for p in FOLDER.glob('*/README.md'))


def run(*arguments):
  return subprocess.run(
      [sys.executable, '-m', 'experiments.run', *arguments],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
  )


def test_an_unknown_question_lists_what_there_is(tmp_path):
  done = run('--question=nope', f'--workdir={tmp_path}/w')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert "expected one of ['adaptation', 'ar_vs_diffusion'" in done.stderr


@pytest.mark.parametrize(
    'flag, message',
    [
        ('--arms=nope', "'nope'. are not arms"),
        ('--shard=2/2', 'expected i/n'),
        # Found out before anything runs, not after.
        ('--publish', 'needs template among the QUESTIONS'),
        ('--variant=speech_world', 'template has none'),
    ],
)
def test_wrong_flags_are_told_in_a_line(tmp_path, flag, message):
  done = run('--question=template', f'--workdir={tmp_path}/w', flag)
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert re.search(message, done.stderr)


def test_the_least_question_is_planned_and_answered(tmp_path):
  flags = ('--question=template', '--budget=smoke', f'--workdir={tmp_path}')
  planned = run(*flags, '--dry_run')
  assert planned.returncode == 0, planned.stderr
  assert '  model.objective.width: 8 -> 1' in planned.stdout
  assert '3 runs to sweep, 6 to measure' in planned.stdout
  assert not list(tmp_path.iterdir())
  done = run(*flags)
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / 'template' / 'results.json').read_text())
  assert results['missing'] == 0 and len(results['arms']) == 3
  for arm in results['arms']:
    for each in arm['runs']:
      (path,) = tmp_path.glob(f'stages/error-{each["key"][:16]}/result.json')
      metrics = json.loads(path.read_text())['result']['metrics']
      assert each['values']['error'] == metrics['eval/toy/squared_error']
  assert pages.markdown(results) in done.stdout
  page = (tmp_path / 'template' / 'report.html').read_text()
  for text in ('How wide', 'width_1 − width_8', 'A smoke run', 'Training'):
    assert text in page


def test_the_list_is_the_map():
  done = run('--list')
  assert done.returncode == 0 and '| [adaptation](' in done.stdout


def test_the_map_names_all_questions_and_is_as_written():
  assert len(overview.QUESTIONS) == 22
  assert set(ASKED) <= set(overview.QUESTIONS)
  assert (FOLDER / 'README.md').read_text() == overview.page()


@pytest.mark.parametrize('name', ASKED)
def test_a_readme_may_be_published_to(name):
  text = (FOLDER / name / 'README.md').read_text()
  module = importlib.import_module(f'experiments.{name}')
  variants = getattr(module, 'VARIANTS', ('',))
  assert len(set(variants)) == len(variants) and variants[0] == ''
  for variant in variants:
    named = filter(None, [variant])
    assert module.question('smoke', *named).variant == variant
    for line in pages.marks(variant):
      assert text.splitlines().count(line) == 1


@pytest.mark.parametrize('name', ASKED)
def test_a_readme_says_what_its_results_say(name):
  text = (FOLDER / name / 'README.md').read_text()
  for path in pages.files(FOLDER, name):
    results = json.loads(path.read_text())
    assert path.name == answering.results_name(results['variant'])
    assert pages.with_results(text, results) == text
    picture = (path.parent / plots.file_name(results['variant'])).read_text()
    for line in results['comparisons'][results['outcomes'][0]['name']]:
      assert f'{line["a"]} − {line["b"]}' in picture
      assert f'{line["mean"]:+.2f} [' in picture
