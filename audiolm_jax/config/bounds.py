"""What values fields may have, for classes that people make in Python."""

from collections.abc import Iterable
import math
import typing
from typing import Any

from audiolm_jax import config


def check(instance: Any) -> None:
  """Refuses values out of the ranges that an instance's annotations have.

  `build` checks them, too: this is for classes that people make in Python.

  Args:
    instance: a dataclass.

  Raises:
    ConfigError: naming the first; also for a number that is not finite.
  """
  for name, (_, annotation) in config.schema(type(instance)).items():
    value = getattr(instance, name)
    limits = _ranges(annotation) if value is not None else []
    if not all(math.isfinite(value) and x.holds(value) for x in limits):
      raise config.ConfigError(
          f'{name} = {value}: expected a finite number {limits[0].describe()}'
      )


def idle(instance: Any, names: Iterable[str], because: str) -> None:
  """Refuses fields that are not at their defaults, where they do nothing.

  Args:
    instance: a dataclass.
    names: of the fields.
    because: why they do nothing: "where closing = 'none'".

  Raises:
    ConfigError: naming the first.
  """
  for name in names:
    value, default = getattr(instance, name), getattr(type(instance), name)
    if value != default:
      raise config.ConfigError(
          f'{name} = {value} does nothing {because}: leave it at {default}'
      )


def _ranges(annotation) -> list[config.Range]:
  """The ranges of a field that may be None."""
  parts = [annotation, *typing.get_args(annotation)]
  metadata = [x for part in parts for x in getattr(part, '__metadata__', ())]
  return [x for x in metadata if isinstance(x, config.Range)]
