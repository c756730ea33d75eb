"""Typed configuration: dataclasses are the schema, ConfigDicts the values.

Every configurable thing is a dataclass (a Linen module is one too). Its fields,
with their annotations and defaults, are the only description of what may be
configured. Config files call `defaults` to get a complete `ConfigDict`; the
program calls `build` to turn a (possibly overridden) `ConfigDict` back into the
dataclass. Both check, and name the key, the value and what is allowed.

Field annotations understood: `int`, `float`, `bool`, `str`, `Literal[...]`,
`X | None`, `tuple[X, ...]`, another dataclass, `Annotated[X, Range(...)]`, and
`Annotated[Any, Kind(lambda: TABLE)]` for a choice between dataclasses, where
`TABLE` maps a `kind` name to a class. `Named(X)` maps free names to X,
`Annotated[str, Path()]` is a file or folder.
"""

import dataclasses
import difflib
import json
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import ml_collections
from ml_collections import config_dict

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


class ConfigError(ValueError):
  """A configuration that cannot be used; the message names the key."""


@dataclasses.dataclass(frozen=True)
class Range:
  """Inclusive bounds of a number (or of each number of a tuple)."""

  min: float | None = None
  max: float | None = None

  def describe(self) -> str:
    if self.min is not None and self.max is not None:
      return f'in [{self.min:g}, {self.max:g}]'
    if self.min is not None:
      return f'>= {self.min:g}'
    return f'<= {self.max:g}'

  def holds(self, value) -> bool:
    return (self.min is None or value >= self.min) and (
        self.max is None or value <= self.max
    )


# The numbers that most fields are.
Positive = Annotated[int, Range(min=1)]
Count = Annotated[int, Range(min=0)]
Sizes = Annotated[tuple[int, ...], Range(min=1)]
NonNegative = Annotated[float, Range(min=0)]
Share = Annotated[float, Range(min=0, max=1)]


@dataclasses.dataclass(frozen=True)
class Kind:
  """A choice between dataclasses; `table()` maps `kind` names to classes."""

  table: Callable[[], Mapping[str, type]]


@dataclasses.dataclass(frozen=True)
class Named:
  """Free names, each mapping to a value of the annotation `value`."""

  value: Any


@dataclasses.dataclass(frozen=True)
class Path:
  """A file or folder, from where the program runs.

  Attributes:
    kept: where a value may also be a name: what a file keeps of it, which for a
      path is its absolute form.
  """

  kept: Callable[[str], str] | None = None


@dataclasses.dataclass(frozen=True)
class Fact:
  """A value that may stand elsewhere too, and must be the same there.

  Attributes:
    name: what it is of, such as 'frame rate'.
    key: where it stands.
    value: a number (to a thousandth), a string, or a tuple, of which what two
      places both have must agree.
  """

  name: str
  key: str
  value: Any

  def agrees(self, other: 'Fact') -> bool:
    mine, theirs = self.value, other.value
    if isinstance(mine, tuple):
      return all(map(operator.eq, mine, theirs))
    if isinstance(mine, float):
      return math.isclose(mine, theirs, rel_tol=1e-3)
    return mine == theirs


def check_facts(facts: Iterable[Fact]) -> None:
  """Holds facts of the same name against each other.

  Raises:
    ConfigError: naming two keys and their values.
  """
  known: dict[str, list[Fact]] = {}
  for fact in facts:
    for other in known.setdefault(fact.name, []):
      if not fact.agrees(other):
        raise ConfigError(
            f'{other.key} = {other.value!r}, but {fact.key} = {fact.value!r}:'
            f' the {fact.name} must be the same.'
        )
    known[fact.name].append(fact)


def defaults(cls: type, /, **overrides) -> ml_collections.ConfigDict:
  """The complete `ConfigDict` of dataclass `cls`, with `overrides` applied.

  Args:
    cls: a dataclass or Linen module class.
    **overrides: field values; nested ones as dicts or ConfigDicts. A field
      without a default must be given.

  Raises:
    ConfigError: naming the key, for an unknown or ill-typed override.
  """
  return to_config(build(cls, overrides, path=cls.__name__))


def kind(table: Mapping[str, type], name: str, /, **overrides):
  """`defaults(table[name])` with its `kind` entry, for a `Kind` field."""
  cls = _choose(table, name, 'kind')
  config = defaults(cls, **overrides)
  with config.unlocked():
    config.kind = name
  return config


def build(cls: type, config: Mapping[str, Any], path: str = 'config'):
  """Builds the dataclass `cls` from `config`, checking every field.

  Raises:
    ConfigError: for an unknown key (with the nearest known one), a missing key,
      a wrong type or a value out of range; the message names the key's path.
  """
  values = _as_dict(config, path)
  fields = schema(cls)
  for key in values:
    if key not in fields:
      raise ConfigError(unknown_key(f'{path}.{key}', key, fields))
  arguments = {}
  for name, (field, annotation) in fields.items():
    if name in values:
      arguments[name] = _check(annotation, values[name], f'{path}.{name}')
    elif (
        field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ):
      raise ConfigError(
          f'{path}.{name} is missing: give {_describe(annotation)}.'
      )
  try:
    return cls(**arguments)
  except ConfigError:
    raise
  except ValueError as error:
    # Of a check of its own, where values do not fit each other.
    raise ConfigError(f'{path}: {error}') from error


def build_kind(table: Mapping[str, type], config, path: str = 'config'):
  """Builds the class that `config['kind']` names in `table`."""
  values = _as_dict(config, path)
  if 'kind' not in values:
    raise ConfigError(f'{path}.kind is missing: give one of {sorted(table)}.')
  cls = _choose(table, values.pop('kind'), f'{path}.kind')
  return build(cls, values, path)


def to_config(instance) -> ml_collections.ConfigDict:
  """The `ConfigDict` that `build` would turn into `instance`."""
  result = ml_collections.ConfigDict()
  for name, (_, annotation) in schema(type(instance)).items():
    _set(result, name, annotation, getattr(instance, name))
  return result


def to_json(config: ml_collections.ConfigDict) -> str:
  """`config` as indented JSON with sorted keys (tuples become lists)."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def difference(old, new, path: str = 'config') -> list[str]:
  """Lines 'config.key: old -> new' for every leaf in which two configs differ.

  Takes ConfigDicts or mappings. Tuples and lists with the same elements are
  equal, as JSON has no tuples.
  """
  old, new = _as_dict(old, path), _as_dict(new, path)
  lines = []
  for key in sorted({*old, *new}):
    name = f'{path}.{key}'
    if key not in old:
      lines.append(f'{name}: (absent) -> {new[key]!r}')
    elif key not in new:
      lines.append(f'{name}: {old[key]!r} -> (absent)')
    elif _is_group(old[key]) and _is_group(new[key]):
      lines += difference(old[key], new[key], name)
    elif _same_groups(old[key], new[key]):
      for i, (a, b) in enumerate(zip(old[key], new[key], strict=True)):
        lines += difference(a, b, f'{name}[{i}]')
    elif _plain(old[key]) != _plain(new[key]):
      lines.append(f'{name}: {old[key]!r} -> {new[key]!r}')
  return lines


def relative(path: str | os.PathLike, folder: str | os.PathLike) -> str:
  """A path as a file in `folder` keeps it: so that both can move together.

  Relative to the folder, unless they have nothing but the root in common.
  """
  path = os.path.realpath(os.path.expanduser(path))
  folder = os.path.realpath(folder)
  if os.path.commonpath([path, folder]) == os.path.abspath(os.sep):
    return path
  return os.path.relpath(path, folder)


def located(path: str, folder: str | os.PathLike) -> str:
  """The inverse of `relative`, as an absolute path."""
  return os.path.normpath(os.path.join(os.path.realpath(folder), path))


def portable(
    cls: type, values: Mapping[str, Any], folder: str | os.PathLike
) -> dict[str, Any]:
  """A config's values as a file in `folder` keeps them; see `relative`.

  Args:
    cls: the config's dataclass.
    values: plain dicts; paths are from where the program runs.
    folder: where the file is.
  """

  def kept(item, value):
    return item.kept(value) if item.kept else relative(value, folder)

  return _with_paths(cls, values, kept)


def placed(
    cls: type, values: Mapping[str, Any], folder: str | os.PathLike
) -> dict[str, Any]:
  """The inverse of `portable`: paths are absolute."""
  return _with_paths(
      cls,
      values,
      lambda item, v: v if item.kept else located(v, folder),
  )


def unknown_key(path: str, key: str, known) -> str:
  """The message for an unknown key: the nearest known one, or all of them."""
  near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
  if near:
    parent = path.rpartition('.')[0]
    return f'{path} is not a known key. Did you mean {parent}.{near[0]}?'
  return f'{path} is not a known key. Known: {", ".join(sorted(known))}.'


def schema(cls: type) -> dict[str, tuple[dataclasses.Field, Any]]:
  """The configurable fields of a dataclass: name -> (field, annotation)."""
  annotations = typing.get_type_hints(cls, include_extras=True)
  return {
      field.name: (field, annotations[field.name])
      for field in dataclasses.fields(cls)
      # A Linen module also has the fields `parent` and `name`.
      if field.init and field.name not in ('parent', 'name')
  }


def _choose(table, name, path):
  if not isinstance(name, str) or name not in table:
    near = difflib.get_close_matches(str(name), list(table), n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise ConfigError(
        f'{path} = {name!r}: expected one of {sorted(table)}.{hint}'
    )
  return table[name]


def _with_paths(annotation, value, change):
  """A value with `change(Path, value)` in place of each path in it.

  What does not fit the annotation stays as it is: `build` tells of that.
  """
  base, metadata = _unwrap(annotation)
  base, _ = _optional(base)
  base, more = _unwrap(base)
  for item in metadata + more:
    if isinstance(item, Path) and isinstance(value, str) and value:
      return change(item, value)
    if isinstance(item, Kind) and _is_group(value):
      kind = value.get('kind')
      base = item.table().get(kind) if isinstance(kind, str) else None
    if isinstance(item, Named) and _is_group(value):
      return {k: _with_paths(item.value, v, change) for k, v in value.items()}
  if _is_group(value) and dataclasses.is_dataclass(base):
    fields = schema(base)
    return {
        k: _with_paths(fields[k][1], v, change) if k in fields else v
        for k, v in value.items()
    }
  if typing.get_origin(base) is tuple and isinstance(value, (tuple, list)):
    element = typing.get_args(base)[0]
    return tuple(_with_paths(element, entry, change) for entry in value)
  return value


def _is_group(value) -> bool:
  return isinstance(value, (Mapping, ml_collections.ConfigDict))


def _same_groups(*values) -> bool:
  """Whether all are equally many groups in a row."""
  lists = all(isinstance(v, (tuple, list)) for v in values)
  return (
      lists
      and len({len(v) for v in values}) == 1
      and all(_is_group(entry) for v in values for entry in v)
  )


def _as_dict(config, path) -> dict[str, Any]:
  if isinstance(config, ml_collections.ConfigDict):
    return {key: config[key] for key in config}
  if isinstance(config, Mapping):
    return dict(config)
  raise ConfigError(f'{path} = {config!r}: expected a group of keys.')


def _plain(value):
  return (
      [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
  )


def _unwrap(annotation):
  """Splits Annotated[X, metadata...] into (X, metadata)."""
  if typing.get_origin(annotation) is typing.Annotated:
    base, *metadata = typing.get_args(annotation)
    return base, metadata
  return annotation, []


def _optional(annotation):
  """For X | None returns (X, True), else (annotation, False)."""
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    rest = [a for a in typing.get_args(annotation) if a is not type(None)]
    if len(rest) == 1:
      return rest[0], True
  return annotation, False


def _describe(annotation) -> str:
  base, metadata = _unwrap(annotation)
  base, optional = _optional(base)
  base, more = _unwrap(base)
  metadata = metadata + more
  for item in metadata:
    if isinstance(item, Kind):
      return f'a group with kind in {sorted(item.table())}'
    if isinstance(item, Named):
      return f'a group whose every entry is {_describe(item.value)}'
  if typing.get_origin(base) is typing.Literal:
    text = f'one of {list(typing.get_args(base))}'
  elif typing.get_origin(base) is tuple:
    text = f'a tuple, each entry {_describe(typing.get_args(base)[0])}'
  else:
    text = getattr(base, '__name__', str(base))
  for item in metadata:
    if isinstance(item, Range):
      text += f' {item.describe()}'
  return text + (' or None' if optional else '')


def _check(annotation, value, path):
  """Returns `value` as the annotation's type, or raises ConfigError."""
  base, metadata = _unwrap(annotation)
  base, optional = _optional(base)
  if optional and value is None:
    return None
  base, more = _unwrap(base)
  for item in metadata + more:
    if isinstance(item, Kind):
      table = item.table()
      if type(value) in table.values():
        return value
      return build_kind(table, value, path)
    if isinstance(item, Named):
      return {
          key: _check(item.value, entry, f'{path}.{key}')
          for key, entry in _as_dict(value, path).items()
      }
  wrong = ConfigError(
      f'{path} = {value!r} ({type(value).__name__}):'
      f' expected {_describe(annotation)}.'
  )
  if dataclasses.is_dataclass(base):
    return value if isinstance(value, base) else build(base, value, path)
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
        raise ConfigError(f'{path} = {value}: expected at most {most}.')
    numbers = (value,)
  for item in metadata + more:
    if isinstance(item, Range) and not all(map(item.holds, numbers)):
      raise wrong
  return value


def _set(result, name, annotation, value):
  """Stores a field's value in a ConfigDict in the form `build` accepts."""
  base, metadata = _unwrap(annotation)
  base, optional = _optional(base)
  base, more = _unwrap(base)
  for item in metadata + more:
    if isinstance(item, Kind) and value is not None:
      (found,) = [k for k, c in item.table().items() if c is type(value)]
      result[name] = to_config(value)
      result[name].kind = found
      return
    if isinstance(item, Named):
      result[name] = ml_collections.ConfigDict()
      for key, entry in value.items():
        _set(result[name], key, item.value, entry)
      return
  if dataclasses.is_dataclass(value):
    result[name] = to_config(value)
  elif typing.get_origin(base) is tuple and value is not None:
    result[name] = tuple(
        _entry(typing.get_args(base)[0], entry) for entry in value
    )
  elif value is None and base in (int, float, str, bool):
    # A placeholder keeps the type, so that a flag can set it later.
    result[name] = config_dict.placeholder(base)
  else:
    result[name] = value


def _entry(annotation, value):
  """An entry of a tuple; groups as plain dicts, since JSON knows them."""
  holder = ml_collections.ConfigDict()
  _set(holder, 'value', annotation, value)
  return holder.to_dict()['value']
