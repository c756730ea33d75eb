"""Damaged inputs end in a clear error or in the right result, format by format.

Each module beside this one makes inputs of some formats and reads them as a
user would. They are read in processes of their own, so that a crash, a hang and
an appetite for memory are outcomes like others. The normal run takes a few
inputs of each format; `-m slow` takes `FULL`, more than 1,000 in all, and
prints the counts that tests/SLOW.md records.
"""

import collections
import importlib
import json
import os
import pathlib
import selectors
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MODULES = (
    'audio',
    'benchmark_folders',
    'corpora_and_caches',
    'runs',
    'token_folders',
    'token_streams',
    'weights',
)
FULL, PART, SEED = 64, 16, 20261128
# A damaged input is small: reading it takes neither long nor much memory.
SECONDS, BYTES = 60, 1 << 30
# Until the first input: imports, and making the whole that is then damaged.
START_SECONDS = 300


def _formats(name):
  return sorted(importlib.import_module(f'tests.fuzz.{name}').FORMATS)


def _lines(process):
  """Lines of a process, or None where one takes too long."""
  selector = selectors.DefaultSelector()
  selector.register(process.stdout, selectors.EVENT_READ)
  buffer, limit = b'', START_SECONDS
  while True:
    deadline = time.monotonic() + limit
    while b'\n' not in buffer:
      if not selector.select(max(deadline - time.monotonic(), 0)):
        yield None
        return
      chunk = os.read(process.stdout.fileno(), 1 << 16)
      if not chunk:
        return
      buffer += chunk
    line, _, buffer = buffer.partition(b'\n')
    if line.startswith(b'FUZZ '):
      limit = SECONDS
      yield json.loads(line.removeprefix(b'FUZZ '))


def _read_all(name, kind, directory, count):
  """The outcome of each input of a format; those that ended its reader too."""
  outcomes, first = [], 0
  while True:
    command = [
        sys.executable,
        str(pathlib.Path(__file__).with_name('worker.py')),
    ]
    arguments = [name, kind, directory / str(first), SEED, count, first]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    )
    started, peak = None, None
    errors = _drain(process)
    try:
      for line in _lines(process):
        if line is None:
          break
        if 'made' in line:
          return outcomes
        if 'number' not in line:
          peak = line['peak']
          continue
        if 'outcome' not in line:
          started = line
          continue
        grown = line['peak'] - peak
        peak, started = line['peak'], None
        if grown > BYTES:
          line['outcome'] = f'memory: {grown / 1e9:.1f} GB'
        outcomes.append(line)
      hung = process.poll() is None and line is None
    finally:
      process.kill()
      process.wait()
    assert started is not None, errors().decode(errors='replace')[-3000:]
    ended = 'hang' if hung else f'crash: exit status {process.returncode}'
    outcomes.append({**started, 'outcome': ended, 'message': ''})
    first = started['number'] + 1


def _drain(process):
  """Reads stderr beside, so that a full pipe does not stop the process."""
  pieces = []

  def read():
    pieces.extend(iter(lambda: process.stderr.read1(1 << 16), b''))

  thread = threading.Thread(target=read, daemon=True)
  thread.start()

  def joined():
    thread.join(10)
    return b''.join(pieces)

  return joined


def _faults(outcomes):
  lines = []
  for entry in outcomes:
    how, must_fail = entry['outcome'], entry.get('must_fail')
    if how == 'accepted' and must_fail:
      how = 'silent'
    elif how == 'error' and must_fail is False:
      how = 'refused, though it is right'
    elif how in ('accepted', 'error'):
      continue
    lines.append(f'{entry["label"]}: {how} {entry["message"]}')
  return lines


def _check(name, tmp_path, count):
  faults = []
  for kind in _formats(name):
    outcomes = _read_all(name, kind, tmp_path / kind, count)
    assert len(outcomes) >= count, kind
    counts = collections.Counter(entry['outcome'] for entry in outcomes)
    print(f'{name}/{kind}: {len(outcomes)} inputs, {dict(counts)}')
    # Inputs that are all accepted are no test of errors.
    assert counts['error'], kind
    faults += [f'{kind}/{line}' for line in _faults(outcomes)]
  assert not faults, '\n'.join(faults)


@pytest.mark.parametrize('name', MODULES)
def test_some_damaged_inputs(name, tmp_path):
  _check(name, tmp_path, PART)


@pytest.mark.slow
@pytest.mark.parametrize('name', MODULES)
def test_a_thousand_damaged_inputs(name, tmp_path):
  _check(name, tmp_path, FULL)


def test_all_inputs_together_are_more_than_a_thousand():
  formats = sum(len(_formats(name)) for name in MODULES)
  assert FULL >= 50 and formats * FULL >= 1000
