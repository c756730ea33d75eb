"""What a process gets before and around training."""

import argparse
import subprocess
import sys
import types

import pytest

from audiolm_jax.training import launch


def test_reexecution_keeps_the_command_and_happens_once(monkeypatch):
  calls = []
  monkeypatch.setattr(launch.os, 'execve', lambda *a: calls.append(a))
  monkeypatch.setattr(launch.sys, 'platform', 'linux')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  for name in launch._ALLOCATOR:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.delenv(launch._GUARD, raising=False)
  launch.reexecute()
  ((_, argv, environment),) = calls
  assert argv[1:] == launch.sys.orig_argv[1:]
  assert environment['MALLOC_ARENA_MAX'] == '1'
  monkeypatch.setattr(launch.os, 'environ', environment)
  launch.reexecute()
  assert len(calls) == 1


def test_numbers_are_within_their_range():
  parser = argparse.ArgumentParser(exit_on_error=False)
  share = launch.number(float, lambda x: 0 < x <= 1, 'more than 0, at most 1')
  parser.add_argument('--share', type=share)
  assert parser.parse_args(['--share=0.5']).share == 0.5
  for text in ('0', 'nan', '1.5'):
    with pytest.raises(
        argparse.ArgumentError, match=f'{text}: expected more than 0, at most 1'
    ):
      parser.parse_args([f'--share={text}'])
  with pytest.raises(argparse.ArgumentError, match="invalid float value: 'a'"):
    parser.parse_args(['--share=a'])


def test_sigterm_is_passed_on_to_a_command():
  command = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print('there', flush=True)
signal.pause()
"""
  program = f"""
import sys
from audiolm_jax.training import launch
print(launch.wait([sys.executable, '-c', {command!r}]))
"""
  process = subprocess.Popen(
      [sys.executable, '-c', program], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'there\n'
  process.terminate()
  assert process.communicate(timeout=30)[0] == '(5, True)\n'
  assert process.returncode == 0


def test_a_failure_is_the_last_thing_printed():
  program = 'import atexit; from audiolm_jax.training import launch\n'
  program += "atexit.register(print, 1)\nprint(0)\nlaunch.fail('error: no')"
  done = subprocess.run(
      [sys.executable, '-c', program],
      capture_output=True,
      text=True,
      check=False,
  )
  assert (done.returncode, done.stdout) == (1, '0\n')
  assert done.stderr == 'error: no\n'


def test_reads_after_a_failed_one_are_not_told(monkeypatch):
  told = []
  monkeypatch.setattr(launch.sys, 'unraisablehook', told.append)
  launch.prepare()
  launch.prepare()

  async def read():
    pass

  def unraisable(error, thing=None):
    launch.sys.unraisablehook(
        types.SimpleNamespace(exc_value=error, object=thing)
    )

  mine = read()
  unraisable(RuntimeError('Event loop is closed'))
  unraisable(error := RuntimeError('another'), mine)
  mine.close()
  assert [entry.exc_value for entry in told] == [error]
