"""Which tests are costly: written from how long each took.

  pytest -q -m 'not slow and not parity' --durations=0 --durations-min=0.05 > log
  python tests/costs.py log --keep=900

adds to tests/costly.txt the functions that cost most, until the others take --keep
seconds of one core together; what is listed is not in a log of the README's line. To
begin anew, remove the file. Set-ups that many tests share are not counted: where
they are what costs, list all functions of their file by hand. CI runs all; the
README's test line leaves these out.
"""

import argparse
import collections
import pathlib
import re

LIST = pathlib.Path(__file__).with_name('costly.txt')
_LINE = re.compile(r'^([\d.]+)s call +(tests/\S+?)(?:\[.*)?$', re.MULTILINE)


def costly(log: str, keep: float) -> list[str]:
  """Names of test functions, of all their parameters together.

  Args:
    log: what pytest printed, with durations.
    keep: seconds that the others may take.
  """
  spent: dict[str, float] = collections.defaultdict(float)
  for seconds, name in _LINE.findall(log):
    spent[name] += float(seconds)
  chosen, rest = [], sum(spent.values())
  for name, seconds in sorted(spent.items(), key=lambda x: -x[1]):
    if rest <= keep:
      break
    chosen.append(name)
    rest -= seconds
  return sorted(chosen)


def listed() -> list[str]:
  """The names that are marked `costly`."""
  return LIST.read_text('utf-8').split()


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('log', type=pathlib.Path)
  parser.add_argument('--keep', type=float, required=True)
  options = parser.parse_args()
  names = costly(options.log.read_text('utf-8'), options.keep)
  if not names:
    parser.error(f'{options.log} has no durations that add up to more')
  names = sorted({*names, *(listed() if LIST.exists() else ())})
  LIST.write_text('\n'.join(names) + '\n', 'utf-8')
  print(f'{LIST}: {len(names)} functions')


if __name__ == '__main__':
  main()
