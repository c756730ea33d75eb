"""Codebooks trained on rows spread over devices are those of one device."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

SCRIPT = pathlib.Path(__file__).with_name('run_codebooks.py')


def test_two_devices_train_the_same_codebooks():
  done = subprocess.run(
      [sys.executable, str(SCRIPT)],
      capture_output=True,
      text=True,
      timeout=240,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  (line,) = [x for x in done.stdout.splitlines() if x.startswith('RESULT ')]
  results = json.loads(line.removeprefix('RESULT '))
  assert set(results) == {'rvq', 'lfq'}
  for one, two in results.values():
    assert (one['devices'], two['devices']) == (1, 2)
    assert (one['reduced'], two['reduced']) == (False, True)
    np.testing.assert_array_equal(two['codes'], one['codes'])
    assert len(np.unique(one['codes'])) > 5
    for a, b in zip(two['state'], one['state'], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
