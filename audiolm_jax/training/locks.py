"""One trainer at a time in a work directory."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import socket
import time

from absl import logging
import jax

from audiolm_jax import config
from audiolm_jax.training import processes

FILE = '.lock'


class LockedError(config.ConfigError):
  """A work directory in which another process trains."""


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a directory as long as this process lives and the context lasts.

  The system lets go of it when the process dies, however it dies. Of the
  processes of one run the first holds it for all.

  Raises:
    LockedError: in every process, if another run holds it; it says which.
  """
  file, problem = None, None
  if jax.process_index() == 0:
    # Not truncated: what is there tells of who holds it.
    file = (workdir / FILE).open('a+')
    problem = _lock(file, workdir)
  try:
    problem, *_ = processes.gather(problem)
    if problem is not None:
      raise LockedError(problem)
    yield
  finally:
    if file is not None:
      file.close()


def is_held(workdir: pathlib.Path) -> bool:
  """Whether a process, this one included, holds a directory.

  A process that tries to hold it at this instant may be refused.
  """
  path = workdir / FILE
  if not path.exists():
    return False
  with path.open('a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
    except OSError:
      return False  # A file system without locks: nobody can be seen.
  return False


def _lock(file, workdir: pathlib.Path) -> str | None:
  """Locks and signs a file, or says who has it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.read().strip() or 'another process'
    return (
        f'{workdir} is being trained in by {holder}. Wait for it, end it, or'
        ' give another --workdir.'
    )
  except OSError as error:
    # Some network file systems have no locks.
    logging.warning(
        '%s cannot be locked (%s): see that nothing else trains in it.',
        workdir,
        error,
    )
    return None
  file.truncate(0)
  since = time.strftime('%Y-%m-%d %H:%M:%S')
  file.write(f'process {os.getpid()} on {socket.gethostname()} since {since}\n')
  file.flush()
  return None
