"""Scripts of tools/ as modules, to test what is in them."""

import importlib.util
import pathlib
import types

TOOLS = pathlib.Path(__file__).parents[1] / 'tools'


def load(name: str) -> types.ModuleType:
  """tools/NAME.py, run anew."""
  path = TOOLS / f'{name}.py'
  spec = importlib.util.spec_from_file_location(f'{name}_tool', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
