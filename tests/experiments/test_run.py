"""experiments/run.py as a command: what is wrong is told in a line."""

import pathlib
import subprocess
import sys

import pytest

from audiolm_jax import config
from experiments import run

ROOT = pathlib.Path(__file__).parents[2]


def test_an_unknown_question_lists_what_there_is(tmp_path):
  command = [sys.executable, '-m', 'experiments.run', '--question=nope']
  done = subprocess.run(
      [*command, f'--workdir={tmp_path}/w'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert "expected one of ['adaptation', 'state_spaces']" in done.stderr


@pytest.mark.parametrize('content', [b'', b'{"metrics": ', b'\xff', b'[]'])
def test_a_damaged_result_is_named(tmp_path, content):
  path = tmp_path / 'result.json'
  path.write_bytes(content)
  with pytest.raises(config.ConfigError, match=f'{path} is damaged'):
    run._read(path)


def test_a_command_that_fails_ends_it(capfd):
  with pytest.raises(SystemExit, match='failed .status 3.'):
    run.command('python -c "raise SystemExit(3)"')
  assert capfd.readouterr().out.startswith('$ python -c')
