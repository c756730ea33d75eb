"""The command line: a wrong one ends at once with one message, no traceback."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    'flags,message',
    [
        (
            ['--config=configs/toy.py:smoke', '--config.stepz', '1'],
            'error: config.stepz is not a known key. Did you mean config.steps?',
        ),
        (['--config=configs/toy.py:smoke', 'extra'], "['extra']"),
        ([], 'give --config'),
        (['--evaluate', '--config.steps=1'], 'takes the config of --workdir'),
        (['--evaluate'], 'is no work directory'),
    ],
)
def test_wrong_commands(tmp_path, flags, message):
  command = [
      sys.executable,
      '-m',
      'audiolm_jax.main',
      f'--workdir={tmp_path}/w',
  ]
  done = subprocess.run(
      [*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  assert message in done.stderr
  assert 'Traceback' not in done.stderr and done.stderr.count('\n') == 1
  assert not (tmp_path / 'w').exists()


def test_a_failed_start_is_told_last_and_leaves_the_way_free(tmp_path):
  command = [
      sys.executable,
      '-m',
      'audiolm_jax.main',
      f'--workdir={tmp_path}/w',
      '--config=configs/toy.py:smoke',
  ]
  wrong = ['--config.data.kind=tokens', '--config.data.cache=/nope']
  done = subprocess.run(
      [*command, *wrong], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert done.stderr.splitlines()[-1].startswith(
      'error: The token cache /nope does not exist.'
  )
  # The corrected command.
  done = subprocess.run(
      [*command, '--config.steps=1'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr


def test_a_place_where_nothing_can_be_written_is_named():
  command = [sys.executable, '-m', 'audiolm_jax.main', '--workdir=/proc/w/x']
  done = subprocess.run(
      [*command, '--config=configs/toy.py:smoke'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith('error: ') and '/proc/w' in last
