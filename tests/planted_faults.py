"""Faults that the tests must catch: does each still fail?

  python tests/planted_faults.py [--only=NAME] [--jobs=2]

A copy of the checkout gets one fault at a time, and the tests that ought to see
it run: they pass on the copy without a fault, and must fail with it. Run it
before and after tests are made faster. About 18 minutes on 2 cores.

The faults stand in tests/faults.py.
"""

import argparse
from collections.abc import Iterator
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Beside this file, which is run as a script.
from faults import Fault
from faults import FAULTS

ROOT = pathlib.Path(__file__).parents[1]


def place(root: pathlib.Path, fault: Fault) -> pathlib.Path:
  """The one file of the package that has a fault's text.

  Raises:
    LookupError: if none has, or several.
  """
  files = [
      path
      for path in (root / 'audiolm_jax').rglob('*.py')
      for _ in range(path.read_text('utf-8').count(fault.old))
  ]
  if len(files) != 1:
    raise LookupError(f'{fault.name}: {len(files)} places have {fault.old!r}')
  return files[0]


def test_files(root: pathlib.Path, names: tuple[str, ...]) -> list[str]:
  """Paths of test files by their names.

  Raises:
    LookupError: if one does not exist.
  """
  paths = []
  for name in names:
    found = sorted(map(str, (root / 'tests').rglob(name)))
    if not found:
      raise LookupError(f'no test file {name}')
    paths += [path for path in found if '/parity/' not in path]
  return paths


def passes(root: pathlib.Path, names: tuple[str, ...]) -> bool:
  """Whether tests pass in a copy of the checkout."""
  arguments = '-x -q -n 0 -p no:cacheprovider --no-header'.split()
  arguments += ['-m', 'not slow and not parity']  # The costly ones, too.
  result = subprocess.run(
      [sys.executable, '-m', 'pytest', *arguments, *test_files(root, names)],
      cwd=root,
      env={**os.environ, 'PYTHONPATH': str(root)},
      capture_output=True,
  )
  return result.returncode == 0


def check(root: pathlib.Path, faults: list[Fault]) -> Iterator[tuple[str, str]]:
  """(fault, 'caught', 'MISSED' or what else is wrong), one after the other."""
  sound: dict[tuple[str, ...], bool] = {}
  for fault in faults:
    if fault.tests not in sound:
      sound[fault.tests] = passes(root, fault.tests)
    if not sound[fault.tests]:
      yield fault.name, 'its tests fail without it'
      continue
    path = place(root, fault)
    text = path.read_text('utf-8')
    path.write_text(text.replace(fault.old, fault.new), 'utf-8')
    try:
      yield fault.name, 'MISSED' if passes(root, fault.tests) else 'caught'
    finally:
      path.write_text(text, 'utf-8')


def _share(faults: list[Fault]) -> list[tuple[str, str]]:
  """`check` in a copy of its own."""
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder) / 'checkout'
    ignored = shutil.ignore_patterns(
        '.git', 'runs', '__pycache__', '*.egg-info'
    )
    shutil.copytree(ROOT, root, ignore=ignored)
    results = []
    for name, result in check(root, faults):
      print(f'{result}: {name}', flush=True)
      results.append((name, result))
    return results


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--only', help='faults whose names contain this')
  parser.add_argument('--jobs', type=int, default=2, help='at a time')
  options = parser.parse_args()
  faults = [f for f in FAULTS if (options.only or '') in f.name]
  for fault in faults:
    place(ROOT, fault)
    test_files(ROOT, fault.tests)
  # Those with the same tests together.
  faults.sort(key=lambda fault: fault.tests)
  size = -(-len(faults) // options.jobs) if faults else 1
  shares = [faults[i : i + size] for i in range(0, len(faults), size)]
  with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    results = [r for share in pool.map(_share, shares) for r in share]
  caught = sum(result == 'caught' for _, result in results)
  print(f'{caught} of {len(results)} faults are caught.')
  sys.exit(caught != len(results))


if __name__ == '__main__':
  main()
