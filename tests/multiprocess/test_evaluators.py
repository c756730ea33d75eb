"""Evaluators of several processes see all scores, which are one device's."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from audiolm_jax.data import token_cache

SCRIPT = pathlib.Path(__file__).with_name('run_evaluators.py')
CLIPS = {'train': 1, 'validation': 5, 'test': 1}


@pytest.fixture
def cache(tmp_path):
  spec = {'slots': [{'codebook': 0, 'vocabulary': 8}]}
  writer = token_cache.Writer(
      tmp_path / 'tokens',
      token_cache.Identity('hash', 'nowhere', spec, 'made_up', (), CLIPS),
  )
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    clips = [
        token_cache.Example(
            rng.integers(0, 8, (3 + 4 * i, 1), np.int32),
            samples=320,
            factors={'id': f'{split}{i}', 'language': 'en'},
        )
        for i in indices
    ]
    writer.write(split, part, clips)
  assert writer.finish()
  return tmp_path / 'tokens'


def _start(*arguments):
  return subprocess.Popen(
      [sys.executable, str(SCRIPT), *map(str, arguments)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def _result(process):
  out, err = process.communicate(timeout=400)
  assert process.returncode == 0, err[-3000:]
  line = next(x for x in out.splitlines() if x.startswith('RESULT '))
  return json.loads(line.removeprefix('RESULT '))


def test_two_processes_see_the_scores_of_one(cache):
  one = _result(_start(cache, 1))
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  both = [_start(cache, 2, i, 2, port) for i in range(2)]
  try:
    found = [_result(process) for process in both]
  finally:
    for process in both:
      process.kill()
  assert found[0] == found[1]
  for kind, expected in one.items():
    assert expected['share'] == 1 and found[0][kind]['share'] < 0.9
    assert len(expected['scores']) >= 8
    for score, (name, item, total, weight) in zip(
        found[0][kind]['scores'], expected['scores'], strict=True
    ):
      assert score[:2] == [name, item] and score[3] == weight
      np.testing.assert_allclose(score[2], total, rtol=1e-3, atol=1e-4)
