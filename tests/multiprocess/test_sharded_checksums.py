"""Checksums of shards hold what other shardings, and processes, read."""

import json
import os
import pathlib
import socket
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).with_name('run_checksums.py')


def test_two_processes_agree_on_damage(tmp_path):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  both = [
      subprocess.Popen(
          [sys.executable, str(SCRIPT), str(tmp_path), str(i), str(port)],
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
          env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      )
      for i in range(2)
  ]
  try:
    for process in both:
      out, err = process.communicate(timeout=120)
      assert process.returncode == 0, err[-3000:]
      (line,) = [x for x in out.splitlines() if x.startswith('RESULT ')]
      damage = ['w is not what was saved']
      assert json.loads(line.removeprefix('RESULT ')) == [
          [blocks, damage, True] for blocks in (1, 4, 4, 4)
      ]
  finally:
    for process in both:
      process.kill()
