"""Sharded runs equal one device's, and are really sharded."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('run_toy.py')


def _start(*arguments):
  return subprocess.Popen(
      [sys.executable, str(SCRIPT), *map(str, arguments)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def _result(process):
  out, err = process.communicate(timeout=240)
  assert process.returncode == 0, err[-3000:]
  line = next(x for x in out.splitlines() if x.startswith('RESULT '))
  return json.loads(line.removeprefix('RESULT '))


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  return _result(_start(tmp_path_factory.mktemp('one'), 1, 1, 1, 1))


def _assert_equal_and_sharded(found, one):
  assert len(one['losses']) == 20
  np.testing.assert_allclose(found['losses'], one['losses'], rtol=1e-5)
  np.testing.assert_allclose(found['evaluation'], one['evaluation'], rtol=1e-5)
  assert np.prod(found['shard']) < np.prod(found['global'])
  assert found['moment'] == found['shard']
  assert {'all-reduce', 'all-gather'} <= set(found['collectives'])
  assert not one['collectives']


@pytest.mark.parametrize('axes', [(2, 2, 1), (1, 2, 2)])
def test_four_devices(one, tmp_path, axes):
  found = _result(_start(tmp_path, 4, *axes))
  _assert_equal_and_sharded(found, one)
  # Resumed from a sharded checkpoint, and loaded whole on one device.
  assert found['resumed'] == found['losses']
  assert found['loaded'] == found['global']


def test_two_processes_of_two_devices(one, tmp_path):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  both = [_start(tmp_path, 2, 2, 2, 1, i, 2, port) for i in range(2)]
  try:
    found = _result(both[0])
    both[1].communicate(timeout=60)
    assert both[1].returncode == 0
  finally:
    for process in both:
      process.kill()
  _assert_equal_and_sharded(found, one)
