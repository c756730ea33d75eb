"""The quickstart's driver: what it takes for finished, and Ctrl-C."""

import json
import os
import signal
import sys
import threading
import types

from absl import flags
import pytest
from tests import tool_module


@pytest.fixture(name='quickstart', scope='module')
def _quickstart() -> types.ModuleType:
  # Other scripts that tests import define flags of the same names.
  with pytest.MonkeyPatch.context() as patch:
    for name in ('DEFINE_string', 'DEFINE_enum'):
      patch.setattr(flags, name, lambda *arguments: None)
    return tool_module.load('quickstart')


@pytest.fixture(name='console')
def _console(quickstart):
  return quickstart.rich.console.Console(quiet=True)


def _run(quickstart, console, workdir, code, **options):
  command = f'python -c "{code}"'
  return quickstart._run(console, workdir, 'lm', 'test', command, **options)


def test_a_finished_stage_does_not_run_again(quickstart, console, tmp_path):
  mark = tmp_path / 'mark'
  code = f"open('{mark}', 'a').write('x')"
  assert _run(quickstart, console, tmp_path, code)
  assert _run(quickstart, console, tmp_path, code)
  assert mark.read_text() == 'x'
  # Another command is another stage.
  assert _run(quickstart, console, tmp_path, code + ';')
  assert mark.read_text() == 'xx'


def test_a_failed_stage_ends_it_or_is_told(quickstart, console, tmp_path):
  with pytest.raises(SystemExit, match="'lm' failed .exit status 3"):
    _run(quickstart, console, tmp_path, 'raise SystemExit(3)')
  assert not _run(
      quickstart, console, tmp_path, 'raise SystemExit(3)', required=False
  )
  assert not (tmp_path / 'stages.json').exists()


def test_a_run_that_a_signal_ended_is_not_taken_for_whole(
    quickstart, console, tmp_path
):
  run = tmp_path / 'lm'
  (run / 'checkpoints' / '7').mkdir(parents=True)
  (run / 'config.json').write_text(json.dumps({'steps': 9}))
  with pytest.raises(SystemExit, match='interrupted'):
    _run(quickstart, console, tmp_path, 'pass')
  (run / 'checkpoints' / '9').mkdir()
  assert _run(quickstart, console, tmp_path, 'pass')


def test_ctrl_c_lets_the_stage_end_by_itself(quickstart):
  before = signal.getsignal(signal.SIGINT)
  timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
  timer.start()
  code = 'import time; time.sleep(1); raise SystemExit(5)'
  assert quickstart._wait([sys.executable, '-c', code]) == (5, True)
  assert signal.getsignal(signal.SIGINT) is before
