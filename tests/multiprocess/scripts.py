"""Scripts of this folder in processes of their own, and what they print."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any


def start(name: str, *arguments: Any) -> subprocess.Popen:
  """Starts NAME.py, which prints a line 'RESULT ' and a JSON value."""
  path = pathlib.Path(__file__).with_name(f'{name}.py')
  return subprocess.Popen(
      [sys.executable, str(path), *map(str, arguments)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def result(process: subprocess.Popen, timeout: float = 600) -> Any:
  """The value that a process printed, which must have ended well."""
  try:
    out, err = process.communicate(timeout=timeout)
  finally:
    process.kill()
  assert process.returncode == 0, err[-3000:]
  (line,) = [x for x in out.splitlines() if x.startswith('RESULT ')]
  return json.loads(line.removeprefix('RESULT '))


def results(processes: list[subprocess.Popen]) -> list[Any]:
  """Of processes that wait for each other; if one fails, none is left."""
  try:
    return [result(process) for process in processes]
  finally:
    for process in processes:
      process.kill()


def free_port() -> int:
  """A port for the processes to meet at."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]
