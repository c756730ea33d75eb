"""Imports point downwards: the rooms of DESIGN.md, in their order."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'audiolm_jax'
# From the bottom to the top; a room imports only what stands before it.
ORDER = [
    'config',
    'ops',
    'streaming',
    'backbones',
    'training',
    'audio',
    'patterns',
    'processes',
    'tokenizers',
    'data',
    'decoders',
    'param_transforms',
    'generation',
    'interop',
    'models',
    'objectives',
    'evaluation',
    'comparison',
    'resolution',
    'assembly',
    'exporting',
    'evaluate',
    'train',
    'lab',
    'main',
]


def test_the_design_has_the_rooms_in_this_order():
  text = (PACKAGE.parent / 'docs' / 'design.md').read_text('utf-8')
  table = text.partition('## The rooms')[2].partition('## ')[0]
  names = []
  for cells in re.findall(r'^\| (`.*?) \|', table, re.M):
    named = [n.removesuffix('.py') for n in re.findall(r'`([\w.]+)/?`', cells)]
    names += reversed(sorted(named, key=lambda n: (ORDER + named).index(n)))
  outside = {'configs', 'experiments', 'tools'}
  assert [n for n in reversed(names) if n not in outside] == ORDER


def room(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imported_rooms(source: str) -> set[str]:
  """The rooms of audiolm_jax that a module's imports name."""
  rooms = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative import'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      parts = name.split('.')
      if parts[0] == 'audiolm_jax' and len(parts) > 1:
        rooms.add(parts[1])
  return rooms


def wrong(importer: str, source: str) -> set[str]:
  rank = ORDER.index(importer)
  return {
      name
      for name in imported_rooms(source)
      if name != importer and ORDER.index(name) > rank
  }


MODULES = [
    p
    for p in sorted(PACKAGE.rglob('*.py'))
    if p.parent != PACKAGE or (p.stem != '__init__')
]


@pytest.mark.parametrize(
    'path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_downwards(path):
  assert room(path) in ORDER, f'{room(path)} is not a room: add it to ORDER'
  assert not wrong(room(path), path.read_text('utf-8'))


def test_a_planted_upward_import_is_found():
  assert wrong('ops', 'from audiolm_jax.training import mesh') == {'training'}
  assert wrong('ops', 'from audiolm_jax import train') == {'train'}
  assert not wrong('training', 'from audiolm_jax import ops')


def test_no_file_is_over_500_lines_and_train_under_450():
  root = PACKAGE.parent
  for folder in ('audiolm_jax', 'configs', 'experiments', 'tools', 'tests'):
    for path in (root / folder).rglob('*.py'):
      lines = len(path.read_text('utf-8').splitlines())
      limit = 450 if path == PACKAGE / 'train.py' else 500
      assert lines <= limit, f'{path}: {lines} lines'


_MOST_LINES = 60  # Of a function.


def long_functions(source: str) -> set[str]:
  return {
      node.name
      for node in ast.walk(ast.parse(source))
      if isinstance(node, ast.FunctionDef)
      and node.end_lineno - node.lineno >= _MOST_LINES
  }


def test_no_function_is_over_60_lines():
  assert long_functions('def f():\n' + '  1\n' * 60) == {'f'}
  assert not long_functions('def f():\n' + '  1\n' * 59)
  found = set()
  for path in PACKAGE.rglob('*.py'):
    found |= long_functions(path.read_text('utf-8'))
  assert not found


ROOT = PACKAGE.parent
FOLDERS = ('audiolm_jax', 'configs', 'experiments', 'tests', 'tools')


def aliases(source: str) -> set[tuple[str, str]]:
  """(module, the name that it goes by) of every import of our own."""
  return {
      (f'{node.module}.{alias.name}', alias.asname or alias.name)
      for node in ast.walk(ast.parse(source))
      if isinstance(node, ast.ImportFrom)
      and node.module.partition('.')[0] in FOLDERS
      for alias in node.names
  }


def ambiguous(found: set[tuple[str, str]]) -> dict[str, list[str]]:
  """Modules that go by several names."""
  names = {}
  for module, name in sorted(found):
    names.setdefault(module, []).append(name)
  return {module: each for module, each in names.items() if len(each) > 1}


def test_a_module_goes_by_one_name_everywhere():
  found = set()
  for folder in FOLDERS:
    for path in (ROOT / folder).rglob('*.py'):
      found |= aliases(path.read_text('utf-8'))
  assert ('audiolm_jax.tokenizers.base', 'tokenizers_base') in found
  assert not ambiguous(found)


def test_a_planted_second_name_is_found():
  first = 'from audiolm_jax.tokenizers import base as tokenizers_base'
  second = 'def f():\n  from audiolm_jax.tokenizers import base\n'
  assert not ambiguous(aliases(first))
  assert ambiguous(aliases(first) | aliases(second)) == {
      'audiolm_jax.tokenizers.base': ['base', 'tokenizers_base']
  }
