"""The values of a config.json, each checked for its type and range when read."""

from collections.abc import Collection, Mapping
import dataclasses
import json
import pathlib
import reprlib
import sys
from typing import Any

CONFIG = 'config.json'
_LARGEST = 2**31 - 1


class PretrainedError(ValueError):
  """Weights that do not fit; the message lists all that is wrong."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What the weights beside a config.json can hold: no size exceeds it.

  So nothing is made of a size that only the config names.

  Attributes:
    tensors: how many there are; no more layers and codebooks.
    elements: of the largest, twice as many where it is of bytes (which may hold
      two each); no more channels, ids, taps, ...
  """

  tensors: int
  elements: int


class Fields:
  """An object of a config.json.

  All methods raise PretrainedError, which names the key, its value and what was
  expected.

  Args:
    values: the object.
    defaults: what keys that it lacks stand for.
    aliases: other names of keys -> theirs.
    limits: of sizes, where there are weights.
    place: where it stands in the file, such as 'decoder.'.
  """

  def __init__(
      self,
      values: Mapping[str, Any],
      defaults: Mapping[str, Any] | None = None,
      aliases: Mapping[str, str] | None = None,
      limits: Limits | None = None,
      place: str = '',
  ):
    self._given, self._defaults = dict(values), dict(defaults or {})
    self._values = {**self._defaults, **self._given}
    self._limits, self._place = limits, place
    for alias, key in (aliases or {}).items():
      if alias not in self._given:
        continue
      value = self._given[alias]
      if self._given.setdefault(key, value) != value:
        raise self.error(alias, f'the same as {key} = {self._given[key]!r}')
      self._values[key] = value

  def __contains__(self, key: str) -> bool:
    """Whether the file has a key."""
    return key in self._given

  def __bool__(self) -> bool:
    """Whether the file has any key."""
    return bool(self._given)

  def get(self, key: str) -> Any:
    """`raw`; None where there is none."""
    return self._values.get(key)

  def error(self, key: str, expected: str) -> PretrainedError:
    """What to raise for the value of a key."""
    return PretrainedError(
        f'{CONFIG}: {self._place}{key} = {shown(self._values.get(key))}:'
        f' expected {expected}'
    )

  def raw(self, key: str) -> Any:
    """A value of any type."""
    if key not in self._values:
      raise PretrainedError(f'{CONFIG} lacks the key {self._place + key!r}')
    return self._values[key]

  def whole(
      self,
      key: str,
      least: int = 1,
      most: int = _LARGEST,
      null: bool = False,
  ) -> Any:
    """An integer in [least, most]; None for null, where that is allowed."""
    value = self.raw(key)
    if value is None and null:
      return None
    if not _is_whole(value) or not least <= value <= most:
      bound = f'at least {least}' if most == _LARGEST else f'{least} to {most}'
      raise self.error(key, f'an integer, {bound}' + ' or null' * null)
    return value

  def size(self, key: str, least: int = 1, null: bool = False) -> Any:
    """`whole`, of an axis of some tensor."""
    value = self.whole(key, least, null=null)
    if value is not None:
      self.check_size(key, value)
    return value

  def check_size(self, key: str, elements: int) -> None:
    """Raises PretrainedError if no tensor has so many elements."""
    if self._limits is not None and elements > self._limits.elements:
      raise self.error(
          key,
          'a size of the weights, whose tensors have at most'
          f' {self._limits.elements} elements',
      )

  def count(self, key: str, least: int = 1) -> int:
    """`whole`, of things each of which has tensors of its own."""
    value = self.whole(key, least)
    self.check_count(key, value)
    return value

  def check_count(self, key: str, count: int) -> None:
    """Raises PretrainedError if there are not so many tensors."""
    if self._limits is not None and count > self._limits.tensors:
      raise self.error(
          key, f'as many as the weights have, of {self._limits.tensors} tensors'
      )

  def wholes(self, key: str, least: int = 1) -> tuple[int, ...]:
    """A list of `size`, not empty and no longer than a `count`."""
    values = self.items(key)
    if not all(_is_whole(v) and least <= v <= _LARGEST for v in values):
      raise self.error(key, f'integers, each at least {least}')
    self.check_size(key, max(values))
    return tuple(values)

  def items(self, key: str) -> list[Any]:
    """A list of any values, not empty and no longer than a `count`."""
    values = self.raw(key)
    if not isinstance(values, list | tuple) or not values:
      raise self.error(key, 'a list of at least one value')
    self.check_count(key, len(values))
    return list(values)

  def number(
      self,
      key: str,
      least: float = -sys.float_info.max,
      most: float = sys.float_info.max,
      above: float | None = None,
      null: bool = False,
  ) -> Any:
    """A finite number in [least, most] and over `above`; None for null."""
    value = self.raw(key)
    if value is None and null:
      return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or (above is not None and value <= above)
    ):
      bounds = [
          f'{word} {bound:g}'
          for word, bound in (
              ('at least', least),
              ('at most', most),
              ('above', above),
          )
          if bound is not None and abs(bound) != sys.float_info.max
      ]
      raise self.error(key, ', '.join(['a number'] + bounds))
    return float(value)

  def flag(self, key: str) -> bool:
    """True or false."""
    value = self.raw(key)
    if not isinstance(value, bool):
      raise self.error(key, 'true or false')
    return value

  def choice(self, key: str, allowed: Collection[Any]) -> Any:
    """One of some texts, or what it stands for where they are a mapping."""
    value = self.raw(key)
    if not isinstance(value, str) or value not in allowed:
      raise self.error(key, f'one of {sorted(allowed)}')
    return allowed[value] if isinstance(allowed, Mapping) else value

  def part(
      self,
      key: str,
      defaults: Mapping[str, Any] | None = None,
      aliases: Mapping[str, str] | None = None,
  ) -> 'Fields':
    """An object inside this one; the default one where it is null or absent."""
    value = self._values.get(key)
    if value is None:
      value = self._defaults.get(key) or {}
    if not isinstance(value, dict):
      raise self.error(key, 'an object')
    return Fields(
        value, defaults, aliases, self._limits, f'{self._place}{key}.'
    )

  def parts(self) -> list[str]:
    """Keys of objects."""
    return [k for k, v in self._given.items() if isinstance(v, dict)]

  def refuse_unknown(self, known: Collection[str]) -> None:
    """Raises PretrainedError for a key that may change what is computed.

    That is one that is none of `known` and no note of the library's ('_...'),
    and whose value says something: it is neither null nor false.

    Args:
      known: keys.
    """
    for key, value in self._given.items():
      is_note = key.startswith('_')
      if key not in known and not is_note and value not in (None, False):
        raise PretrainedError(
            f'{CONFIG}: {self._place}{key} = {shown(value)} is not supported'
        )

  def require(self, wanted: Mapping[str, Any]) -> None:
    """Raises PretrainedError where a key is there and has another value."""
    for key, value in wanted.items():
      if self._values.get(key, value) != value:
        raise PretrainedError(
            f'{CONFIG}: {self._place}{key} ='
            f' {shown(self._values[key])} is not supported: only'
            f' {value!r}'
        )


def shown(value: Any) -> str:
  """A value as a message has it: what is long is cut."""
  return _SHOWN.repr(value)


_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200


def read(path: pathlib.Path) -> dict[str, Any]:
  """The object that a JSON file holds.

  Raises:
    PretrainedError: naming the file, if it is missing or damaged.
  """
  try:
    if not path.is_file():
      what = 'is no file' if path.exists() else 'is missing'
      raise PretrainedError(f'{path} {what}.')
    value = json.loads(path.read_text('utf-8'))
  except OSError as error:
    raise PretrainedError(f'{path}: {error.strerror}') from error
  except RecursionError as error:
    raise PretrainedError(f'{path} is nested too deeply.') from error
  except PretrainedError:
    raise
  except ValueError as error:
    raise PretrainedError(f'{path} is not JSON: {error}') from error
  if not isinstance(value, dict):
    raise PretrainedError(f'{path} holds {shown(value)}: expected an object')
  return value


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)
