"""Instances of mappings and of other instances, checked."""

from collections.abc import Mapping
import dataclasses
import difflib
import math
import re
import typing
from typing import Any

import ml_collections

from audiolm_jax.config import classes
from audiolm_jax.config import annotations

# Fields whose absurd values would take all time or memory before any shape that
# could be refused is known: how many parts there are, each of which is built or
# looped over, and how wide they are.
_MOST = {
    re.compile(
        r'(layers|blocks|heads|groups|experts|codebooks|acoustic|semantic|'
        r'kernel)$'
    ): 10_000,
    re.compile(r'(width|hidden|dimension|features|filters|inner)$'): 1 << 20,
}


def build(cls: type, config: Any, path: str = 'config'):
  """Builds the dataclass `cls` anew, checking every field.

  Args:
    cls: a dataclass or Linen module class.
    config: its fields as a mapping or `ConfigDict`, nested ones as such or as
      instances; or an instance of `cls`, of which everything is built anew.
    path: what messages call it.

  Raises:
    ConfigError: for an unknown key (with the nearest known one), a missing key,
      a wrong type or a value out of range; the message names the key's path.
  """
  values = as_dict(config, path)
  fields = annotations.schema(cls)
  for key in values:
    if key not in fields:
      raise annotations.ConfigError(
          annotations.unknown_key(f'{path}.{key}', key, fields)
      )
  arguments = {}
  for name, (field, annotation) in fields.items():
    if name in values:
      value = values[name]
    elif field.default is not dataclasses.MISSING:
      value = field.default
    elif field.default_factory is not dataclasses.MISSING:
      value = field.default_factory()
    else:
      raise annotations.ConfigError(
          f'{path}.{name} is missing: give {annotations.describe(annotation)}.'
      )
    arguments[name] = _check(annotation, value, f'{path}.{name}')
  try:
    return cls(**arguments)
  except annotations.ConfigError:
    raise
  except ValueError as error:
    # Of a check of its own, where values do not fit each other.
    raise annotations.ConfigError(f'{path}: {error}') from error


def build_kind(table: Mapping[str, type], config, path: str = 'config'):
  """Builds the class that `config['kind']` names in `table`."""
  values = as_dict(config, path)
  if 'kind' not in values:
    raise annotations.ConfigError(
        f'{path}.kind is missing: give one of {sorted(table)}.'
    )
  name = values.pop('kind')
  cls = classes.class_of(table, name)
  if cls is None:
    near = difflib.get_close_matches(str(name), list(table), n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    if ':' in str(name):
      module = name.partition(':')[0]
      hint = f' If it is a class of your own, import {module} first.'
    raise annotations.ConfigError(
        f'{path}.kind = {name!r}: expected one of {sorted(table)}.{hint}'
    )
  return build(cls, values, path)


def _check(annotation, value, path):
  """Returns `value` as the annotation's type, or raises ConfigError."""
  base, metadata, optional = annotations.unwrap(annotation)
  if optional and value is None:
    return None
  for item in metadata:
    if isinstance(item, annotations.Kind):
      if is_group(value):
        return build_kind(item.table(), value, path)
      if classes.kind_of(item.table(), type(value)) is None:
        raise annotations.ConfigError(
            f'{path} is {type(value).__name__}: expected'
            f' {annotations.describe(annotation)}, or a dataclass of your own at'
            ' the top of a module.'
        )
      return build(type(value), value, path)
    if isinstance(item, annotations.Named):
      return {
          key: _check(item.value, entry, f'{path}.{key}')
          for key, entry in as_dict(value, path).items()
      }
  wrong = annotations.ConfigError(
      f'{path} = {value!r} ({type(value).__name__}):'
      f' expected {annotations.describe(annotation)}.'
  )
  if dataclasses.is_dataclass(base):
    cls = type(value) if isinstance(value, base) else base
    return build(cls, value, path)
  if typing.get_origin(base) is typing.Literal:
    if value not in typing.get_args(base):
      raise wrong
    return value
  if typing.get_origin(base) is tuple:
    if not isinstance(value, (tuple, list)):
      raise wrong
    element = typing.get_args(base)[0]
    value = tuple(
        _check(element, entry, f'{path}[{i}]') for i, entry in enumerate(value)
    )
    numbers = value
  else:
    if base is float and type(value) is int:
      try:
        value = float(value)
      except OverflowError:
        raise wrong from None
    if base is not Any and type(value) is not base:
      raise wrong
    if type(value) is float and not math.isfinite(value):
      raise wrong
    for names, most in _MOST.items():
      if type(value) is int and value > most and names.search(path):
        raise annotations.ConfigError(
            f'{path} = {value}: expected at most {most}.'
        )
    numbers = (value,)
  for item in metadata:
    if isinstance(item, annotations.Range) and not all(
        map(item.holds, numbers)
    ):
      raise wrong
  return value


def is_group(value) -> bool:
  """Whether a value has keys that may be fields."""
  return isinstance(value, (Mapping, ml_collections.ConfigDict))


def as_dict(config, path: str) -> dict[str, Any]:
  """The fields of a mapping, a ConfigDict or an instance, not those below.

  Raises:
    ConfigError: for anything else, naming `path`.
  """
  if isinstance(config, ml_collections.ConfigDict):
    return {key: config[key] for key in config}
  if isinstance(config, Mapping):
    return dict(config)
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    return {
        key: getattr(config, key) for key in annotations.schema(type(config))
    }
  raise annotations.ConfigError(
      f'{path} = {config!r}: expected a group of keys.'
  )
