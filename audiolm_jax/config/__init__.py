"""Typed configuration: dataclasses are the schema, and the configs themselves.

Every configurable thing is a dataclass (a Linen module is one too). Its fields,
with their annotations and defaults, are the only description of what may be
configured. A config file returns instances, `replace` changes some of their
fields, `to_config` gives the `ConfigDict` that flags override and config.json
holds, and `build` makes instances of either. Making an instance checks nothing:
`build` does, and it names the key, the value and what is allowed. Every run is
built, so that a module that stands in two fields is two modules with
parameters of their own.

Field annotations understood: `int`, `float`, `bool`, `str`, `Literal[...]`,
`X | None`, `tuple[X, ...]`, another dataclass, `Annotated[X, Range(...)]`, and
`Annotated[Any, Kind(lambda: TABLE)]` for a choice between dataclasses, where
`TABLE` maps a `kind` name to a class. `Named(X)` maps free names to X,
`Annotated[str, Path()]` is a file or folder.

A `Kind` field may also hold a dataclass of an experiment's own, whose `kind` is
then 'module:Class', as in 'experiments.heads.mine:MyHead'. Reading such a
config imports the module only if it lies in `configs/` or `experiments/` of the
checkout that this package is in; any other must have been imported by the
program. So a work directory from elsewhere runs no code of its own.
"""

from collections.abc import Callable, Mapping
import dataclasses
import difflib
import json
import math
import re
import types
import typing
from typing import Annotated, Any

import ml_collections
from ml_collections import config_dict

from audiolm_jax.config import classes


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
  """A file or folder, relative to where the program runs.

  Attributes:
    kept: for fields whose value may also be a name: gives what config.json
      keeps of a value, which for a path is its absolute form.
  """

  kept: Callable[[str], str] | None = None


@dataclasses.dataclass(frozen=True)
class Added:
  """Marks a field that came to a class after runs and models were published.

  At its default, a config with the field must do what the config without it
  did: keys of stages and fingerprints of models leave it out there, so that a
  new option does not make older answers and exports stale. See `identity`.
  """


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
  values = _as_dict(config, path)
  fields = schema(cls)
  for key in values:
    if key not in fields:
      raise ConfigError(unknown_key(f'{path}.{key}', key, fields))
  arguments = {}
  for name, (field, annotation) in fields.items():
    if name in values:
      value = values[name]
    elif field.default is not dataclasses.MISSING:
      value = field.default
    elif field.default_factory is not dataclasses.MISSING:
      value = field.default_factory()
    else:
      raise ConfigError(
          f'{path}.{name} is missing: give {_describe(annotation)}.'
      )
    arguments[name] = _check(annotation, value, f'{path}.{name}')
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
  name = values.pop('kind')
  cls = classes.class_of(table, name)
  if cls is None:
    near = difflib.get_close_matches(str(name), list(table), n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    if isinstance(name, str) and ':' in name:
      module = name.partition(':')[0]
      hint = f' If it is a class of your own, import {module} first.'
    raise ConfigError(
        f'{path}.kind = {name!r}: expected one of {sorted(table)}.{hint}'
    )
  return build(cls, values, path)


def replace(instance, changes: Mapping[str, Any]):
  """A config with some fields, anywhere in it, replaced.

  `replace(run, {'steps': 9, 'objective.decoder.backbone.layers': 12})`. Values
  are instances or what the field holds; `build` checks them.

  Args:
    instance: a dataclass or Linen module.
    changes: values by path; entries of tuples are numbered, as in 'mixers[0]'.
      A path may end in a new name only where names are free, as in
      'evaluators.bits'.

  Raises:
    ConfigError: for a path that there is not, naming the nearest one.
  """
  return _replaced(
      instance,
      {tuple(steps_of(path)): value for path, value in changes.items()},
      'config',
  )


def steps_of(path: str) -> list[str | int]:
  """What a path leads through: 'a.b[0].c' gives ['a', 'b', 0, 'c']."""
  steps = []
  for part in path.split('.'):
    match = re.fullmatch(r'(.+)\[(\d+)\]', part)
    steps += [match[1], int(match[2])] if match else [part]
  return steps


def to_config(instance) -> ml_collections.ConfigDict:
  """The `ConfigDict` that `build` would turn into `instance`."""
  return _to_config(instance, lambda *_: True)


def identity(instance) -> dict[str, Any]:
  """The values that tell an instance from others: what hashes are of.

  Returns:
    plain dicts, from which `build` makes it: `to_config`'s, without the fields
    that are `Added` and have their default.
  """
  return _to_config(instance, _tells).to_dict()


def to_json(config) -> str:
  """An instance or ConfigDict as indented JSON with sorted keys."""
  if dataclasses.is_dataclass(config):
    config = to_config(config)
  return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def unknown_key(path: str, key: str, known) -> str:
  """The message for an unknown key: the nearest known one, or all of them."""
  near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
  if near:
    parent = path.rpartition('.')[0]
    return f'{path} is not a known key. Did you mean {parent}.{near[0]}?'
  return f'{path} is not a known key. Known: {", ".join(sorted(known))}.'


def check_given(path: str, values: Mapping[str, Any], other: str) -> None:
  """Refuses None where nothing has filled it in.

  Args:
    path: of the group, such as 'config.data'.
    values: of its fields, by name.
    other: the group that may say them, such as 'config.objective'.

  Raises:
    ConfigError: naming the first that is None.
  """
  for name, value in values.items():
    if value is None:
      raise ConfigError(f'{path}.{name} = None, and {other} has none: give it.')


def schema(cls: type) -> dict[str, tuple[dataclasses.Field, Any]]:
  """The configurable fields of a dataclass: name -> (field, annotation)."""
  annotations = typing.get_type_hints(cls, include_extras=True)
  return {
      field.name: (field, annotations[field.name])
      for field in dataclasses.fields(cls)
      # A Linen module also has the fields `parent` and `name`.
      if field.init and field.name not in ('parent', 'name')
  }


def unwrap(annotation) -> tuple[Any, list[Any], bool]:
  """The type of an annotation, its metadata, and whether None is allowed."""
  base, metadata = annotation, []
  optional = False
  while True:
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if origin is typing.Annotated:
      base = arguments[0]
      metadata += arguments[1:]
    elif origin in (typing.Union, types.UnionType) and len(arguments) == 2:
      (base,) = [a for a in arguments if a is not type(None)]
      optional = True
    else:
      return base, metadata, optional


def is_group(value) -> bool:
  """Whether a value has keys that may be fields."""
  return isinstance(value, (Mapping, ml_collections.ConfigDict))


def _as_dict(config, path: str) -> dict[str, Any]:
  """The fields of a mapping, a ConfigDict or an instance, not those below.

  Raises:
    ConfigError: for anything else, naming `path`.
  """
  if isinstance(config, ml_collections.ConfigDict):
    return {key: config[key] for key in config}
  if isinstance(config, Mapping):
    return dict(config)
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    return {key: getattr(config, key) for key in schema(type(config))}
  raise ConfigError(f'{path} = {config!r}: expected a group of keys.')


def _describe(annotation) -> str:
  """What an annotation allows, as messages say it."""
  base, metadata, optional = unwrap(annotation)
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
  base, metadata, optional = unwrap(annotation)
  if optional and value is None:
    return None
  for item in metadata:
    if isinstance(item, Kind):
      if is_group(value):
        return build_kind(item.table(), value, path)
      if classes.kind_of(item.table(), type(value)) is None:
        raise ConfigError(
            f'{path} is {type(value).__name__}: expected'
            f' {_describe(annotation)}, or a dataclass of your own at'
            ' the top of a module.'
        )
      return build(type(value), value, path)
    if isinstance(item, Named):
      return {
          key: _check(item.value, entry, f'{path}.{key}')
          # In one order, whatever way it was written: sums follow it.
          for key, entry in sorted(
              _as_dict(value, path).items(), key=lambda pair: str(pair[0])
          )
      }
  if dataclasses.is_dataclass(base):
    if dataclasses.is_dataclass(value) and type(value) is not base:
      # A subclass, too: config.json could not name it.
      raise ConfigError(
          f'{path} is {type(value).__name__}: expected {_describe(annotation)}.'
      )
    return build(base, value, path)
  return _check_leaf(annotation, value, path)


def _check_leaf(annotation, value, path):
  """`_check` of what has no fields."""
  base, metadata, _ = unwrap(annotation)
  wrong = ConfigError(
      f'{path} = {value!r} ({type(value).__name__}):'
      f' expected {_describe(annotation)}.'
  )
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
    if type(value) is int and value.bit_length() > 63:
      raise ConfigError(f'{path} = {value}: expected fewer than 64 bits.')
    for names, most in _MOST.items():
      if type(value) is int and value > most and names.search(path):
        raise ConfigError(f'{path} = {value}: expected at most {most}.')
    numbers = (value,)
  for item in metadata:
    if isinstance(item, Range) and not all(map(item.holds, numbers)):
      raise wrong
  return value


def _replaced(value, changes: dict[tuple[str | int, ...], Any], path: str):
  """`replace` by steps below `value`, which stands at `path`."""
  if () in changes:
    value = changes.pop(())
  if not changes:
    return value
  if isinstance(value, (tuple, list)):
    fields = dict(enumerate(value))
  elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
    fields = _as_dict(value, path)
  else:
    raise ConfigError(f'{path} = {value!r} has no fields to replace.')
  below = {}
  for (step, *rest), new in changes.items():
    below.setdefault(step, {})[tuple(rest)] = new
  for step, inner in below.items():
    index = isinstance(step, int)
    name = f'{path}[{step}]' if index else f'{path}.{step}'
    if step not in fields and not (isinstance(value, Mapping) and () in inner):
      raise ConfigError(unknown_key(name, str(step), [*map(str, fields)]))
    fields[step] = _replaced(fields.get(step), inner, name)
  if isinstance(value, Mapping):
    return fields
  if not dataclasses.is_dataclass(value):
    return tuple(fields.values())
  try:
    return type(value)(**fields)
  except ValueError as error:
    raise ConfigError(f'{path}: {error}') from error


def _tells(field: dataclasses.Field, annotation, value) -> bool:
  """Whether a field's value belongs to what its instance is; see `Added`."""
  if not any(isinstance(item, Added) for item in unwrap(annotation)[1]):
    return True
  default = field.default
  if field.default_factory is not dataclasses.MISSING:
    default = field.default_factory()
  # Before it is built, a config may have a list for a tuple.
  return (tuple(value) if isinstance(value, list) else value) != default


# Whether a config takes in a field: called with it, its annotation and value.
_Keeps = Callable[[dataclasses.Field, Any, Any], bool]


def _to_config(instance, keeps: _Keeps) -> ml_collections.ConfigDict:
  """`to_config` with the fields that `keeps` keeps, wherever they are."""
  result = ml_collections.ConfigDict()
  for name, (field, annotation) in schema(type(instance)).items():
    value = getattr(instance, name)
    if keeps(field, annotation, value):
      _set(result, name, annotation, value, keeps)
  return result


def _set(result, name, annotation, value, keeps: _Keeps):
  """Stores a field's value in a ConfigDict in the form `build` accepts.

  What does not fit the annotation stays as it is, for `build` to refuse.
  """
  base, metadata, _ = unwrap(annotation)
  for item in metadata:
    if isinstance(item, Kind) and dataclasses.is_dataclass(value):
      kind = classes.kind_of(item.table(), type(value))
      if kind is not None:
        result[name] = _to_config(value, keeps)
        result[name].kind = kind
        return
    if isinstance(item, Named) and isinstance(value, Mapping):
      result[name] = ml_collections.ConfigDict()
      for key, entry in value.items():
        _set(result[name], key, item.value, entry, keeps)
      return
  if dataclasses.is_dataclass(value):
    result[name] = _to_config(value, keeps)
  elif typing.get_origin(base) is tuple and isinstance(value, (tuple, list)):
    holder = ml_collections.ConfigDict()
    for index, entry in enumerate(value):
      _set(holder, str(index), typing.get_args(base)[0], entry, keeps)
    # Groups as plain dicts: a ConfigDict's own `to_dict` leaves others there.
    plain = holder.to_dict()
    result[name] = tuple(plain[str(index)] for index in range(len(value)))
  elif value is None and base in (int, float, str, bool):
    # A placeholder keeps the type, so that a flag can set it later.
    result[name] = config_dict.placeholder(base)
  else:
    result[name] = value
