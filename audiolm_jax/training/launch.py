"""What must be set before and around training: process, caches, config file."""

import ast
from collections.abc import Sequence
import copy
import importlib.util
import inspect
import logging as stdlib_logging
import os
import pathlib
import signal
import subprocess
import sys
import typing
from typing import NoReturn

from absl import flags
from absl import logging
import ml_collections

from audiolm_jax import config

# glibc's defaults return every large buffer to the kernel and fault its pages
# in again: 42 s of system time in a 72 s run. They are read before main().
_ALLOCATOR = {
    'MALLOC_MMAP_MAX_': '0',
    'MALLOC_TRIM_THRESHOLD_': '17179869184',
    'MALLOC_TOP_PAD_': '536870912',
    'MALLOC_ARENA_MAX': '1',
    'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
}
_GUARD = 'AUDIOLM_JAX_REEXECUTED'
_ACCELERATORS = ('/dev/nvidia0', '/dev/accel0', '/dev/vfio/0', '/dev/kfd')


def reexecute() -> None:
  """Restarts this process once with allocator settings fit for XLA's CPU.

  Does nothing off Linux, with an accelerator, or where the user has set any of
  the variables. Call it first thing in a script, before heavy imports.
  """
  on_cpu = os.environ.get('JAX_PLATFORMS', '') == 'cpu' or not any(
      map(os.path.exists, _ACCELERATORS)
  )
  if not sys.platform.startswith('linux') or not on_cpu:
    return
  if _GUARD in os.environ or any(name in os.environ for name in _ALLOCATOR):
    return
  environment = {**os.environ, **_ALLOCATOR, _GUARD: '1'}
  sys.stdout.flush()
  sys.stderr.flush()
  os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def prepare() -> None:
  """Compilation cache on, absl flags readable; safe to call many times."""
  import jax  # pylint: disable=g-import-not-at-top

  if jax.config.jax_compilation_cache_dir is None:
    root = os.environ.get('AUDIOLM_JAX_CACHE', '~/.cache/audiolm_jax')
    path = pathlib.Path(root).expanduser() / 'xla'
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update('jax_compilation_cache_dir', str(path))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  if not flags.FLAGS.is_parsed():
    # Grain reads flags; Colab and tests never parse any.
    flags.FLAGS.mark_as_parsed()
  # It tells of every backend that is not there.
  stdlib_logging.getLogger('jax').setLevel(stdlib_logging.WARNING)
  # Orbax reports every save and load in a dozen lines, TFDS every opening.
  logging.get_absl_logger().addFilter(_without_noise)
  stdlib_logging.getLogger('asyncio').addFilter(_not_a_late_read)
  if not isinstance(sys.unraisablehook, _WithoutLateReads):
    sys.unraisablehook = _WithoutLateReads(sys.unraisablehook)


def fail(message: str) -> NoReturn:
  """Ends the process, with a message as the last thing that it prints.

  What libraries do on leaving is left out: after a failed write it fails again,
  with tracebacks below the message. Whoever calls this has closed what is his.
  """
  logging.flush()
  sys.stdout.flush()
  print(message, file=sys.stderr, flush=True)
  os._exit(1)


def wait(
    arguments: Sequence[str], cwd: str | os.PathLike | None = None
) -> tuple[int, bool]:
  """Runs a command: its exit status, and whether a signal came meanwhile.

  The command saves its work on Ctrl-C, which the terminal sends to it too, and
  on SIGTERM, which is passed on. Ending here at once would leave it alone.
  """
  came, commands = [], []

  def on_signal(number, _):
    came.append(number)
    if number == signal.SIGTERM:
      for command in commands:
        command.send_signal(number)

  numbers = (signal.SIGINT, signal.SIGTERM)
  old = {number: signal.signal(number, on_signal) for number in numbers}
  try:
    commands.append(subprocess.Popen(arguments, cwd=cwd))
    if signal.SIGTERM in came:  # Before there was a command.
      commands[0].terminate()
    return commands[0].wait(), bool(came)
  finally:
    for number in numbers:
      signal.signal(number, old[number])


def _without_noise(record) -> bool:
  noisy = ('orbax', 'array_metadata', 'checkpoint', 'tensorflow_datasets')
  if 'orbax' in record.pathname:
    # It raises what it logs, so a line is enough.
    record.exc_info = record.exc_text = None
  return (
      record.levelno >= logging.converter.STANDARD_WARNING
      or not any(word in record.pathname for word in noisy)
      or 'audiolm_jax' in record.pathname
  )


class _WithoutLateReads:
  """Passes on what was raised where nobody can catch it, but for late reads.

  Where a checkpoint cannot be read, Orbax raises for the first leaf that fails
  and closes its event loop. The reads of the other leaves go on, and what comes
  of them would be told with a traceback for each.
  """

  def __init__(self, other):
    self._other = other

  def __call__(self, unraisable) -> None:
    late = str(unraisable.exc_value) == 'Event loop is closed'
    coroutine = inspect.iscoroutine(unraisable.object)
    if coroutine and 'orbax' in unraisable.object.cr_code.co_filename:
      late = True
    if not late:
      self._other(unraisable)


def _not_a_late_read(record) -> bool:
  return 'exception was never retrieved' not in record.getMessage()


def read_config(path: str) -> ml_collections.ConfigDict:
  """The config of 'FILE.py' or 'FILE.py:ARGUMENT'.

  A `get_config` that annotates its argument as a Literal says what it may be.

  Raises:
    config.ConfigError: if there is no such file, it is no Python file, or its
      get_config does not take the argument or gives no config.
  """
  name, _, argument = path.partition(':')
  if not os.path.isfile(name):
    raise config.ConfigError(
        f'--config={path}: no file {name!r} (from {os.getcwd()}).'
    )
  if not name.endswith('.py'):
    raise config.ConfigError(f'--config={path}: {name} is no Python file.')
  spec = importlib.util.spec_from_file_location('config_file', name)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as error:
    if error.filename not in (None, name, os.path.abspath(name)):
      raise  # Of a module that it imports.
    raise config.ConfigError(
        f'--config={path}: {name} is no Python: {error}.'
    ) from error
  if not callable(getattr(module, 'get_config', None)):
    raise config.ConfigError(f'{name} does not define get_config().')
  arguments = [argument] if argument else []
  _check_arguments(path, module.get_config, arguments)
  values = module.get_config(*arguments)
  if not isinstance(values, ml_collections.ConfigDict):
    raise config.ConfigError(
        f'--config={path}: get_config gave {type(values).__name__}, expected'
        ' what config.defaults() gives.'
    )
  return values


def _check_arguments(path: str, get_config, arguments: list[str]) -> None:
  """Whether `get_config` takes what stands behind the colon."""
  signature = inspect.signature(get_config)
  try:
    signature.bind(*arguments)
  except TypeError as error:
    raise config.ConfigError(
        f'--config={path}: get_config{signature} does not fit: {error}.'
    ) from error
  for parameter, argument in zip(
      signature.parameters.values(), arguments, strict=False
  ):
    known = typing.get_args(parameter.annotation)
    if typing.get_origin(parameter.annotation) is not typing.Literal:
      continue
    if argument not in known:
      name = path.partition(':')[0]
      raise config.ConfigError(
          f'--config={path}: there is no {argument!r}; there are '
          + ', '.join(f'{name}:{value}' for value in known)
          + '.'
      )


def override(
    schema: type,
    values: ml_collections.ConfigDict,
    assignments: Sequence[str],
) -> ml_collections.ConfigDict:
  """A copy of a config with 'config.a.b=VALUE' strings applied.

  Values are Python literals, or strings where they are none. Giving a group
  another `kind` drops its other keys, so that they take that kind's defaults.

  Args:
    schema: the config's dataclass, `train.Config`.
    values: the config; it is left as it is.
    assignments: such as 'config.models.lm.optimizer.kind=muon'.

  Raises:
    config.ConfigError: for an unknown key, naming the nearest; for a wrong type
      or a value out of range, naming what is allowed.
  """
  values = copy.deepcopy(values)
  # Kinds first, so that the order of arguments does not matter.
  assignments = sorted(assignments, key=lambda a: not _is_kind(a))
  reset = set()
  for assignment in assignments:
    path, equals, text = assignment.partition('=')
    if not equals:
      raise config.ConfigError(f'--{path} needs a value: --{path}=VALUE.')
    *groups, key = path.split('.')[1:]
    group, name = values, 'config'
    for part in groups:
      free = name in reset
      name = f'{name}.{part}'
      if part not in group:
        if not free:
          raise config.ConfigError(config.unknown_key(name, part, group))
        with group.unlocked():
          group[part] = {}
        reset.add(name)
      group = group[part]
      if not isinstance(group, ml_collections.ConfigDict):
        raise config.ConfigError(f'{name} is a value, so {path} is no key.')
    if key not in group and name not in reset:
      raise config.ConfigError(config.unknown_key(path, key, group))
    wanted = group.get_type(key) if key in group else None
    with group.unlocked(), group.ignore_type():
      if key == 'kind' and group.kind != text:
        for other in list(group):
          del group[other]
        reset.add(name)
      value = _literal(text, wanted)
      try:
        group[key] = value
      except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise config.ConfigError(f'{path} = {text!r}: {error}.') from error
  return config.to_config(config.build(schema, values))


def _is_kind(assignment: str) -> bool:
  return assignment.partition('=')[0].endswith('.kind')


def _literal(text: str, wanted: type | None):
  if wanted is str and text != 'None':
    return text
  if text in ('true', 'false'):
    return text == 'true'
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
