"""What a process needs before and around training: allocator, caches, logs."""

import argparse
from collections.abc import Callable, Sequence
import inspect
import logging as stdlib_logging
import os
import pathlib
import signal
import subprocess
import sys
from typing import NoReturn

from absl import flags
from absl import logging

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


def number(
    kind: type, fits: Callable[[float], bool], expected: str
) -> Callable[[str], float]:
  """A `type` for argparse: numbers of a kind within some range.

  Args:
    kind: int or float.
    fits: whether a number is in range.
    expected: what the range is, for the message.
  """

  def parse(text):
    value = kind(text)
    if not fits(value):
      raise argparse.ArgumentTypeError(f'{text}: expected {expected}')
    return value

  # argparse says 'invalid float value' of what is no number.
  parse.__name__ = kind.__name__
  return parse


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
  of them would be printed with a traceback for each.
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
