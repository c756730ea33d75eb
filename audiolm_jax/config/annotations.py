"""What the fields of a config may hold: annotations, and how they read."""

from collections.abc import Callable, Mapping
import dataclasses
import difflib
import types
import typing
from typing import Annotated, Any


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


def schema(cls: type) -> dict[str, tuple[dataclasses.Field, Any]]:
  """The configurable fields of a dataclass: name -> (field, annotation)."""
  annotations = typing.get_type_hints(cls, include_extras=True)
  return {
      field.name: (field, annotations[field.name])
      for field in dataclasses.fields(cls)
      # A Linen module also has the fields `parent` and `name`.
      if field.init and field.name not in ('parent', 'name')
  }


def unknown_key(path: str, key: str, known) -> str:
  """The message for an unknown key: the nearest known one, or all of them."""
  near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
  if near:
    parent = path.rpartition('.')[0]
    return f'{path} is not a known key. Did you mean {parent}.{near[0]}?'
  return f'{path} is not a known key. Known: {", ".join(sorted(known))}.'


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


def describe(annotation) -> str:
  """What an annotation allows, as messages say it."""
  base, metadata, optional = unwrap(annotation)
  for item in metadata:
    if isinstance(item, Kind):
      return f'a group with kind in {sorted(item.table())}'
    if isinstance(item, Named):
      return f'a group whose every entry is {describe(item.value)}'
  if typing.get_origin(base) is typing.Literal:
    text = f'one of {list(typing.get_args(base))}'
  elif typing.get_origin(base) is tuple:
    text = f'a tuple, each entry {describe(typing.get_args(base)[0])}'
  else:
    text = getattr(base, '__name__', str(base))
  for item in metadata:
    if isinstance(item, Range):
      text += f' {item.describe()}'
  return text + (' or None' if optional else '')
