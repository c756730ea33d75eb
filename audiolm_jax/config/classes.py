"""The class of each `kind`: of a table, or of an experiment's own."""

from collections.abc import Mapping
import dataclasses
import importlib.util
import pathlib
import sys
from typing import Any

_PACKAGE = __name__.partition('.')[0]
_ROOT = pathlib.Path(__file__).absolute().parents[2]


def kind_of(table: Mapping[str, type], cls: type) -> str | None:
  """The `kind` of a class.

  Args:
    table: the kinds that a field has.
    cls: a class of the table, or a dataclass at the top of a module that is
      not of this package.

  Returns:
    Its name in the table, or 'module:Class'; None for any other class.
  """
  for name, known in table.items():
    if known is cls:
      return name
  name = f'{cls.__module__}:{cls.__qualname__}'
  return name if class_of({}, name) is cls else None


def class_of(table: Mapping[str, type], kind: Any) -> type | None:
  """The class of a `kind`, or None where there is none.

  Args:
    table: the kinds that a field has.
    kind: a name in the table, or 'module:Class'. The module is imported if it
      is a file of `configs/` or `experiments/` in the checkout that this
      package is in. Any other must have been imported: configs come from
      elsewhere, too, and must not choose what is run here.
  """
  if not isinstance(kind, str):
    return None
  if kind in table:
    return table[kind]
  module, _, name = kind.partition(':')
  if module.partition('.')[0] == _PACKAGE:
    return None
  if module not in sys.modules and _is_of_checkout(module):
    importlib.import_module(module)
  # Not getattr, by which some modules import others.
  cls = vars(sys.modules.get(module, object)).get(name)
  is_own = isinstance(cls, type) and cls.__module__ == module
  return cls if is_own and dataclasses.is_dataclass(cls) else None


def _is_of_checkout(module: str) -> bool:
  """Whether a module is a file of our `configs` or `experiments`."""
  top, *below = module.split('.')
  if top not in ('configs', 'experiments') or not all(
      part.isidentifier() for part in below
  ):
    return False
  spec = importlib.util.find_spec(top)
  if spec is None or spec.origin is None:
    return False
  if not pathlib.Path(spec.origin).parents[1].samefile(_ROOT):
    return False
  file = _ROOT.joinpath(top, *below)
  return file.with_suffix('.py').is_file() or file.is_dir()
