"""Imports point downwards: the rooms of DESIGN.md, in their order."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'audiolm_jax'
# From the bottom to the top; a room imports only what stands before it.
ORDER = [
    'config',
    'ops',
    'streaming',
    'training',
    'audio',
    'data',
    'patterns',
    'tokenizers',
    'decoders',
    'param_transforms',
    'generation',
    'objectives',
    'evaluation',
    'interop',
    'comparison',
    'assembly',
    'loading',
    'evaluate',
    'train',
    'main',
]


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
