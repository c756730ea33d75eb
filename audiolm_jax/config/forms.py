"""What flags override and files keep of a config, and what differs."""

from collections.abc import Mapping
import dataclasses
import json
import typing

import ml_collections
from ml_collections import config_dict

from audiolm_jax.config import building
from audiolm_jax.config import classes
from audiolm_jax.config import annotations


def to_config(instance) -> ml_collections.ConfigDict:
  """The `ConfigDict` that `build` would turn into `instance`."""
  result = ml_collections.ConfigDict()
  for name, (_, annotation) in annotations.schema(type(instance)).items():
    _set(result, name, annotation, getattr(instance, name))
  return result


def to_json(config) -> str:
  """An instance or ConfigDict as indented JSON with sorted keys."""
  if dataclasses.is_dataclass(config):
    config = to_config(config)
  return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def difference(old, new, path: str = 'config') -> list[str]:
  """Lines 'config.key: old -> new' for every leaf in which two configs differ.

  Takes instances, ConfigDicts or mappings. Tuples and lists with the same
  elements are equal, as JSON has no tuples.
  """
  old, new = (
      to_config(c).to_dict() if dataclasses.is_dataclass(c) else c
      for c in (old, new)
  )
  old, new = building.as_dict(old, path), building.as_dict(new, path)
  lines = []
  for key in sorted({*old, *new}):
    name = f'{path}.{key}'
    if key not in old:
      lines.append(f'{name}: (absent) -> {new[key]!r}')
    elif key not in new:
      lines.append(f'{name}: {old[key]!r} -> (absent)')
    elif building.is_group(old[key]) and building.is_group(new[key]):
      lines += difference(old[key], new[key], name)
    elif _same_groups(old[key], new[key]):
      for i, (a, b) in enumerate(zip(old[key], new[key], strict=True)):
        lines += difference(a, b, f'{name}[{i}]')
    elif _plain(old[key]) != _plain(new[key]):
      lines.append(f'{name}: {old[key]!r} -> {new[key]!r}')
  return lines


def _set(result, name, annotation, value):
  """Stores a field's value in a ConfigDict in the form `build` accepts.

  What does not fit the annotation stays as it is: `build` tells of that.
  """
  base, metadata, _ = annotations.unwrap(annotation)
  for item in metadata:
    if isinstance(item, annotations.Kind) and dataclasses.is_dataclass(value):
      kind = classes.kind_of(item.table(), type(value))
      if kind is not None:
        result[name] = to_config(value)
        result[name].kind = kind
        return
    if isinstance(item, annotations.Named) and isinstance(value, Mapping):
      result[name] = ml_collections.ConfigDict()
      for key, entry in value.items():
        _set(result[name], key, item.value, entry)
      return
  if dataclasses.is_dataclass(value):
    result[name] = to_config(value)
  elif typing.get_origin(base) is tuple and isinstance(value, (tuple, list)):
    holder = ml_collections.ConfigDict()
    for index, entry in enumerate(value):
      _set(holder, str(index), typing.get_args(base)[0], entry)
    # Groups as plain dicts: a ConfigDict's own `to_dict` leaves others there.
    plain = holder.to_dict()
    result[name] = tuple(plain[str(index)] for index in range(len(value)))
  elif value is None and base in (int, float, str, bool):
    # A placeholder keeps the type, so that a flag can set it later.
    result[name] = config_dict.placeholder(base)
  else:
    result[name] = value


def _same_groups(*values) -> bool:
  """Whether all are equally many groups in a row."""
  lists = all(isinstance(v, (tuple, list)) for v in values)
  return (
      lists
      and len({len(v) for v in values}) == 1
      and all(building.is_group(entry) for v in values for entry in v)
  )


def _plain(value):
  return (
      [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
  )
