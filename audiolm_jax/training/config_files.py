"""Config files, and what a command line changes of them."""

import ast
from collections.abc import Collection, Sequence
import dataclasses
import importlib.util
import inspect
import itertools
import operator
import os
from typing import Any

import ml_collections

from audiolm_jax import config

# Of a config: 'smoke' runs every line of it in seconds on CPUs, 'cpu' is for
# two cores and 'gpu' for accelerators.
SIZES = ('smoke', 'cpu', 'gpu')


def read(path: str) -> Any:
  """The config of 'FILE.py' or 'FILE.py:ARGUMENT'.

  Its `get_config` takes the argument apart by `choose`.

  Raises:
    config.ConfigError: if there is no such file, it is no Python file, or its
      get_config does not take the argument or gives no config.
  """
  name, _, argument = path.partition(':')
  if not os.path.isfile(name):
    raise config.ConfigError(
        f'--config={path}: no file {name!r} (from {os.getcwd()}).'
    )
  if not name.endswith('.py'):
    raise config.ConfigError(f'--config={path}: {name} is no Python file.')
  spec = importlib.util.spec_from_file_location('config_file', name)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as error:
    if error.filename not in (None, name, os.path.abspath(name)):
      raise  # Of a module that it imports.
    raise config.ConfigError(
        f'--config={path}: {name} is no Python: {error}.'
    ) from error
  if not callable(getattr(module, 'get_config', None)):
    raise config.ConfigError(f'{name} does not define get_config().')
  arguments = [argument] if argument else []
  signature = inspect.signature(module.get_config)
  try:
    signature.bind(*arguments)
  except TypeError as error:
    raise config.ConfigError(
        f'--config={path}: get_config{signature} does not fit: {error}.'
    ) from error
  try:
    settings = module.get_config(*arguments)
  except config.ConfigError as error:
    raise config.ConfigError(f'--config={path}: {error}') from error
  if isinstance(settings, type) or not dataclasses.is_dataclass(settings):
    raise config.ConfigError(
        f'--config={path}: get_config gave {type(settings).__name__}, expected'
        ' a train.Config.'
    )
  return settings


def override(settings: Any, assignments: Sequence[str]) -> Any:
  """A config with 'config.a.b=VALUE' strings applied, built anew.

  Values are Python literals, or strings where they are none; entries of tuples
  are numbered, as in 'config.objective.decoder.backbone.mixers[0].window=64'.
  Giving a group another `kind` drops its other keys, so that they take that
  kind's defaults.

  Args:
    settings: such as a `train.Config`; it is left as it is.
    assignments: such as 'config.models.lm.optimizer.kind=muon'.

  Raises:
    config.ConfigError: for an unknown key, naming the nearest; for a wrong type
      or a value out of range, naming what is allowed.
  """
  values = config.to_config(settings)
  reset = set()
  # Kinds first, so that the order of arguments does not matter.
  for assignment in sorted(assignments, key=lambda a: not _is_kind(a)):
    path, equals, text = assignment.partition('=')
    if not equals:
      raise config.ConfigError(f'--{path} needs a value: --{path}=VALUE.')
    _assign(values, path, text, reset)
  return config.build(type(settings), values)


def _assign(
    values: ml_collections.ConfigDict, path: str, text: str, reset: set[str]
) -> None:
  """Sets one value; adds to `reset` the groups that may get any key."""
  *groups, key = config.steps_of(path)[1:]
  index = None
  if isinstance(key, int):
    *groups, key, index = *groups, key
  group, name = values, 'config'
  for step in groups:
    rows = isinstance(group, tuple)
    free = name in reset and not rows
    name = f'{name}[{step}]' if isinstance(step, int) else f'{name}.{step}'
    if step not in (range(len(group)) if rows else group):
      if not free or isinstance(step, int):
        known = [*map(str, range(len(group)) if rows else group)]
        raise config.ConfigError(config.unknown_key(name, str(step), known))
      with group.unlocked():
        group[step] = {}
      reset.add(name)
    if isinstance(group[step], tuple) and all(
        isinstance(entry, dict) for entry in group[step]
    ):
      group[step] = tuple(map(ml_collections.ConfigDict, group[step]))
    group = group[step]
    if not isinstance(group, (ml_collections.ConfigDict, tuple)):
      raise config.ConfigError(f'{name} is a value, so {path} is no key.')
  if isinstance(group, tuple):
    raise config.ConfigError(
        f'{path} is not a known key: give {name}[0].{key}.'
    )
  if key not in group and name not in reset:
    raise config.ConfigError(config.unknown_key(path, key, group))
  with group.unlocked(), group.ignore_type():
    if key == 'kind' and group.kind != text:
      for other in list(group):
        del group[other]
      reset.add(name)
    try:
      group[key] = _value(group, key, index, text)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
      raise config.ConfigError(f'{path} = {text!r}: {error}.') from error


def _value(group, key: str, index: int | None, text: str):
  """What a text stands for as `group[key]`, or with its entry `index` so."""
  if index is None:
    return _literal(text, group.get_type(key) if key in group else None)
  if not isinstance(group[key], tuple):
    raise TypeError(f'{key} has no entries')
  old = list(group[key])
  old[index] = _literal(text, type(old[index]))
  return tuple(old)


def choose(argument: str, *choices: Collection[str]) -> tuple[str, ...]:
  """The parts of what stands behind a config file's name and colon.

  Args:
    argument: such as 'gqa,cpu'; of several parts a last one that is missing is
      'cpu'.
    *choices: what each part may be.

  Raises:
    config.ConfigError: that lists what there is.
  """
  parts = tuple(argument.split(','))
  if len(parts) == len(choices) - 1:
    parts += ('cpu',)
  if len(parts) != len(choices) or not all(
      map(operator.contains, choices, parts)
  ):
    known = ', then a comma and '.join(
        f'one of {", ".join(names)}' for names in choices
    )
    raise config.ConfigError(f'there is no {argument!r}: give {known}.')
  return parts


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """A command line's own arguments, and what `override` takes of it.

  Args:
    arguments: in which '--config.a.b=VALUE' or '--config.a.b', 'VALUE' stand
      among others.
  """
  others, assignments = [], []
  rest = iter(arguments)
  for argument in rest:
    key = argument.lstrip('-')
    if not (argument.startswith('-') and key.startswith('config.')):
      others.append(argument)
    elif '=' in key:
      assignments.append(key)
    else:
      assignments.append('='.join([key, *itertools.islice(rest, 1)]))
  return others, assignments


def _is_kind(assignment: str) -> bool:
  return assignment.partition('=')[0].endswith('.kind')


def _literal(text: str, wanted: type | None):
  if wanted is str and text != 'None':
    return text
  if text in ('true', 'false'):
    return text == 'true'
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
