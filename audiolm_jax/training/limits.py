"""What a run needs, held against the memory that there is.

Only what could never fit is refused: all of the memory counts as free.
"""

import os
import pathlib

import jax

from audiolm_jax import config
from audiolm_jax.training import costs

_GROUP = pathlib.Path('/sys/fs/cgroup/memory.max')


def host_memory() -> int:
  """Bytes that this machine, or the container, has for a process."""
  total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  text = _GROUP.read_text().strip() if _GROUP.exists() else ''
  return min(total, int(text)) if text.isdigit() else total


def device_memory() -> int | None:
  """Bytes of one device, or None where it does not say."""
  if jax.default_backend() == 'cpu':
    return host_memory() // jax.local_device_count()
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('bytes_limit')


def check(needed: float, available: int | None, what: str) -> None:
  """Refuses what needs more bytes than there are.

  Raises:
    config.ConfigError: naming `what`, and both numbers.
  """
  if available is not None and needed > available:
    raise config.ConfigError(
        f'{what} would take {costs.readable(needed, "B")}, of which there are'
        f' {costs.readable(available, "B")}.'
    )
