"""Costly tests are named as they are, and chosen by what they cost."""

import ast
import pathlib

from tests import costs

_ROOT = pathlib.Path(__file__).parents[1]


def test_what_is_listed_is_there():
  """A test that was renamed would go back to the README's line unseen."""
  gone = []
  for name in costs.listed():
    path, _, function = name.partition('::')
    text = (_ROOT / path).read_text('utf-8') if (_ROOT / path).exists() else ''
    found = {
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    if function.split('::')[-1] not in found:
      gone.append(name)
  assert not gone, 'write tests/costly.txt again: see tests/costs.py'


def test_the_dearest_go_until_the_rest_is_cheap():
  log = """
4.00s call     tests/a.py::test_one[x]
9.00s setup    tests/a.py::test_two
3.00s call     tests/a.py::test_one[y z]
5.00s call     tests/b.py::test_three
1.00s call     tests/b.py::test_four
"""
  assert costs.costly(log, 13) == []
  assert costs.costly(log, 6) == ['tests/a.py::test_one']
  assert costs.costly(log, 5) == [
      'tests/a.py::test_one',
      'tests/b.py::test_three',
  ]


def test_marks_are_those_of_the_list(request):
  """Of the tests of this run."""
  listed = set(costs.listed())
  for item in request.session.items:
    name = item.nodeid.partition('[')[0]
    marked = item.get_closest_marker('costly') is not None
    assert marked == (name in listed), item.nodeid
