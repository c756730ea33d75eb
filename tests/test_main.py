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
            ['--config=configs/toy.py:smoke', '--config.stepz=1'],
            'error: config.stepz is not a known key. Did you mean config.steps?',
        ),
        (['--config=configs/toy.py:smoke', 'extra'], "['extra']"),
        ([], 'give --config'),
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
