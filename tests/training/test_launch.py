"""Command-line overrides: what is wrong is named, with what is allowed."""

import pathlib
import re
import subprocess
import sys
import types

import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.training import launch

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def base():
  return launch.read_config('configs/toy.py:smoke')


@pytest.fixture(autouse=True)
def _root(request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)


def test_values_take_the_type_of_their_field(base):
  given = launch.override(
      train.Config,
      base,
      [
          'config.steps=7',
          'config.log_ids=true',
          'config.models.mlp.clip=None',
          'config.models.mlp.schedule.learning_rate=3e-4',
          'config.models.mlp.init_from=12',
      ],
  )
  assert given.steps == 7 and given.log_ids is True
  assert given.models.mlp.clip is None
  assert given.models.mlp.schedule.learning_rate == 3e-4
  assert given.models.mlp.init_from == '12'
  assert base.steps == 20


def test_another_kind_brings_its_own_defaults_in_any_order(base):
  flags = [
      'config.models.mlp.optimizer.iterations=3',
      'config.models.mlp.optimizer.kind=muon',
  ]
  given = launch.override(train.Config, base, flags)
  assert given.models.mlp.optimizer.iterations == 3
  assert given.models.mlp.optimizer.momentum == 0.95
  back = 'config.models.mlp.optimizer.kind=adamw'
  given = launch.override(train.Config, given, [back])
  assert given.models.mlp.optimizer.weight_decay == 0.0


@pytest.mark.parametrize(
    'flag,message',
    [
        ('config.stepz=1', 'Did you mean config.steps?'),
        ('config.steps=abc', "config.steps = 'abc' (str): expected int >= 1"),
        ('config.steps=0', 'config.steps = 0 (int): expected int >= 1'),
        ('config.steps.x=0', 'config.steps is a value'),
        ('config.steps', '--config.steps needs a value'),
        ('config.model.mlp.clip=1', 'Did you mean config.models?'),
        ('config.models.mlp.optimizer.kind=adam', "Did you mean 'adamw'?"),
        ('config.models.mlp.optimizer.b1=2', 'expected float in [0, 1]'),
        ('config.checkpoint.mode=least', "one of ['min', 'max']"),
        ('config.batch_size={[]: 1}', "config.batch_size = '{[]: 1}'"),
        ('config.batch_size=' + '(' * 300, 'expected int >= 1'),
        ('config.models={"a.b": {}}', 'config.models = '),
        ('config.models.mlp.clip=1' + '0' * 400, 'config.models.mlp.clip'),
    ],
)
def test_what_is_wrong_is_named(base, flag, message):
  with pytest.raises(config.ConfigError) as error:
    launch.override(train.Config, base, [flag])
  assert message in str(error.value)


def test_a_missing_file_is_named():
  with pytest.raises(config.ConfigError, match='no file'):
    launch.read_config('configs/absent.py')


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


CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if 'def get_config' in path.read_text()
)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_file_lists_its_arguments(name):
  with pytest.raises(config.ConfigError) as error:
    launch.read_config(f'{name}:nope')
  known = re.findall(rf'{name}:(\w+)[,.]', str(error.value))
  assert known, str(error.value)
  # All of them are read by the tests of the configs.
  launch.read_config(f'{name}:{known[-1]}')
  launch.read_config(name)


@pytest.mark.parametrize(
    'content,message',
    [
        ('def get_config(', "is no Python: '\\(' was never closed"),
        ('x = 1', 'does not define get_config'),
        ('get_config = 1', 'does not define get_config'),
        ('def get_config(): return {}', 'gave dict'),
        ('def get_config(): return {}', 'get_config\\(\\) does not fit'),
        ('def get_config(a, b): return {}', r'get_config\(a, b\) does not fit'),
        ('\0', 'is no Python'),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
  path = tmp_path / 'mine.py'
  path.write_text(content)
  argument = ':smoke' if 'fit' in message else ''
  with pytest.raises(config.ConfigError, match=message) as error:
    launch.read_config(f'{path}{argument}')
  assert str(path) in str(error.value)


def test_what_is_no_python_file_is_named(tmp_path):
  (tmp_path / 'a.wav').write_bytes(b'RIFF')
  with pytest.raises(config.ConfigError, match='a.wav is no Python file'):
    launch.read_config(str(tmp_path / 'a.wav'))
  with pytest.raises(config.ConfigError, match='no file'):
    launch.read_config(str(tmp_path))


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
