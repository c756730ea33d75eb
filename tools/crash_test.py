"""Kills a run with SIGKILL again and again, and compares it with a whole one.

python tools/crash_test.py --config=configs/codec/quickstart.py:smoke \
    --kills=10 --config.data.workers=2 --config.checkpoint.every=7

The moments are spread over the uninterrupted run's wall time, start-up,
compilation and saving included; after each the same command is started again.
A run that ends before its next kill is compared, and another one is begun, until
all kills are done. Equal must be: a hash of the whole train state and the data's
position, the ids of all examples in order, and all metrics (time entries aside).
No process and no shared memory may be left behind. Exit code 0 if all holds.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax import assembly as assembly_lib  # noqa: E402
from audiolm_jax.training import checkpoints  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402
from audiolm_jax.training import writers  # noqa: E402

# How long a killed run's helpers may take to notice.
_GRACE_SECONDS = 10.0


def descendants(pid: int) -> set[int]:
  """All processes below `pid`, from /proc."""
  children = {}
  for entry in pathlib.Path('/proc').iterdir():
    if entry.name.isdigit():
      try:
        stat = (entry / 'stat').read_text()
      except (FileNotFoundError, ProcessLookupError):
        continue  # It ended while we looked.
      parent = int(stat.rpartition(')')[2].split()[1])
      children.setdefault(parent, []).append(int(entry.name))
  found, queue = set(), [pid]
  while queue:
    below = children.get(queue.pop(), [])
    found.update(below)
    queue += below
  return found


def alive(pid: int) -> bool:
  """Whether a process exists and is no zombie."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except (FileNotFoundError, ProcessLookupError):
    return False
  return stat.rpartition(')')[2].split()[0] != 'Z'


def shared_memory() -> set[str]:
  """Names of the shared-memory segments there are."""
  folder = pathlib.Path('/dev/shm')
  return {p.name for p in folder.iterdir()} if folder.exists() else set()


def fingerprint(workdir: pathlib.Path) -> dict:
  """What must be equal, of a finished run."""
  records = [
      {k: v for k, v in record.items() if not k.startswith('time/')}
      for record in writers.read_metrics(workdir)
  ]
  step = max(record['step'] for record in records)
  assembly, state = assembly_lib.restore(workdir, step)
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    digest.update(mesh_lib.key(path).encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  store = checkpoints.Checkpoints(
      workdir.absolute() / 'checkpoints', assembly.config.checkpoint, True
  )
  _, position = store.restore(step, assembly.abstract)
  store.close()
  return {
      'state': digest.hexdigest(),
      'position': position,
      'ids': [record['ids'] for record in records if 'ids' in record],
      'metrics': records,
  }


class Crasher:
  """Starts, kills and starts again one command in fresh work directories."""

  def __init__(self, command: list[str], root: pathlib.Path):
    self._command, self._root = command, root
    self._log = (root / 'log.txt').open('w')
    self.left_behind: set[int] = set()

  def start(self, workdir: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*self._command, f'--workdir={workdir}'],
        stdout=self._log,
        stderr=subprocess.STDOUT,
    )

  def whole(self, workdir: pathlib.Path) -> float:
    """Runs to the end; returns the wall time in seconds."""
    then = time.monotonic()
    code = self.start(workdir).wait()
    if code:
      tail = (self._root / 'log.txt').read_text()[-2000:]
      sys.exit(f'The run in {workdir} ended with code {code}:\n{tail}')
    return time.monotonic() - then

  def kill_after(self, workdir: pathlib.Path, seconds: float) -> bool:
    """Whether the run was still there to be killed after `seconds`."""
    process = self.start(workdir)
    try:
      process.wait(seconds)
    except subprocess.TimeoutExpired:
      below = descendants(process.pid)
      process.send_signal(signal.SIGKILL)
      process.wait()
      limit = time.monotonic() + _GRACE_SECONDS
      while any(map(alive, below)) and time.monotonic() < limit:
        time.sleep(0.05)
      self.left_behind |= {pid for pid in below if alive(pid)}
      return True
    if process.returncode:
      sys.exit(f'Code {process.returncode}; see {self._root}/log.txt.')
    return False


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', required=True)
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--root', default='/tmp/crash_test')
  options, overrides = parser.parse_known_args(argv)
  root = pathlib.Path(options.root)
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir(parents=True)
  command = [sys.executable, '-m', 'audiolm_jax.main']
  command += [f'--config={options.config}', '--config.log_ids=true', *overrides]
  segments = shared_memory()
  crasher = Crasher(command, root)
  wall = crasher.whole(root / 'whole')
  print(f'Uninterrupted: {wall:.1f} s.', flush=True)
  expected = fingerprint(root / 'whole')
  # One moment in each of equal parts of the time, in random order.
  rng = random.Random(options.seed)
  moments = [
      wall * (i + rng.random()) / options.kills for i in range(options.kills)
  ]
  rng.shuffle(moments)
  failures, run = [], 0
  while moments:
    workdir = root / f'killed_{run}'
    run += 1
    moment = moments.pop()
    while crasher.kill_after(workdir, moment):
      steps = sorted((workdir / 'checkpoints').glob('[0-9]*'))
      print(f'Killed {workdir.name} after {moment:.2f} s;', end=' ')
      print(f'checkpoints: {[p.name for p in steps]}', flush=True)
      if not moments:
        break
      moment = moments.pop()
    else:
      # It ended first: one more run is due. Sooner, as with a warm compilation
      # cache no run may last as long as the first did.
      moments.append(moment * 0.8)
    crasher.whole(workdir)
    found = fingerprint(workdir)
    for name, value in expected.items():
      if json.dumps(found[name]) != json.dumps(value):
        failures.append(f'{workdir.name}: {name} differs')
  if crasher.left_behind:
    failures.append(f'processes left behind: {sorted(crasher.left_behind)}')
  if shared_memory() - segments:
    failures.append(f'shared memory left: {shared_memory() - segments}')
  print(f'{run} runs, {options.kills} kills; state {expected["state"][:12]}.')
  print('\n'.join(failures) if failures else 'All equal; nothing left behind.')
  return 1 if failures else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
