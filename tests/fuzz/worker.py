"""Reads damaged inputs of one format, one after the other, and says how it went.

python tests/fuzz/worker.py MODULE FORMAT DIRECTORY SEED COUNT FIRST

Makes the inputs anew (they depend on the seed alone), reads those from number
FIRST on, and prints a JSON line before and after each: what is left without a
second line crashed or hung.
"""

import importlib
import json
import os
import pathlib
import resource
import sys
import traceback

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np  # noqa: E402

from audiolm_jax.training import launch  # noqa: E402

MOST_BYTES = 8 << 30


def say(**values) -> None:
  print('FUZZ ' + json.dumps(values), flush=True)


def outcome(module, read, path) -> tuple[str, str]:
  """How reading an input ended, and its message."""
  try:
    read(path)
  except module.ERRORS as error:
    return 'error', str(error)
  except Exception as error:  # The fault that is looked for.
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f'{last.filename}:{last.lineno}'
    return 'raw', f'{type(error).__name__}: {error} ({where})'
  return 'accepted', ''


def peak() -> int:
  """Bytes that this process has held at most."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(name, kind, directory, seed, count, first):
  # What asks for more ends in a MemoryError, not in the machine's death.
  resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
  launch.prepare()
  module = importlib.import_module(f'tests.fuzz.{name}')
  make, read = module.FORMATS[kind]
  folder = pathlib.Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  inputs = make(folder, np.random.default_rng(int(seed)), int(count))
  made = 0
  say(peak=peak())
  for number, (label, path, must_fail) in enumerate(inputs):
    made += 1
    if number < int(first):
      continue
    say(number=number, label=label)
    how, message = outcome(module, read, path)
    say(
        number=number,
        label=label,
        outcome=how,
        message=message[:400],
        must_fail=must_fail,
        peak=peak(),
    )
  say(made=made)


if __name__ == '__main__':
  main(*sys.argv[1:])
