"""Other values for some fields of a nest of frozen instances."""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from audiolm_jax.config import annotations


def replace(instance, changes: Mapping[str, Any]):
  """A config with some fields, anywhere in it, replaced.

  `replace(run, {'steps': 9, 'objective.decoder.backbone.mixers[0].window': 8})`.
  Values are instances or what the field holds; `build` checks them.

  Args:
    instance: a dataclass or Linen module.
    changes: values by path. A path may end in a new name only where names are
      free, as in 'evaluators.bits'.

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


def _replaced(value, changes: dict[tuple[str | int, ...], Any], path: str):
  """`replace` by steps below `value`, which stands at `path`."""
  if () in changes:
    value = changes.pop(())
  if not changes:
    return value
  if dataclasses.is_dataclass(value):
    fields = {
        name: getattr(value, name) for name in annotations.schema(type(value))
    }
  elif isinstance(value, Mapping):
    fields = dict(value)
  elif isinstance(value, (tuple, list)):
    fields = dict(enumerate(value))
  else:
    raise annotations.ConfigError(
        f'{path} = {value!r} has no fields to replace.'
    )
  below = {}
  for (step, *rest), new in changes.items():
    below.setdefault(step, {})[tuple(rest)] = new
  for step, inner in below.items():
    index = isinstance(step, int)
    name = f'{path}[{step}]' if index else f'{path}.{step}'
    if step not in fields and not (isinstance(value, Mapping) and () in inner):
      raise annotations.ConfigError(
          annotations.unknown_key(name, str(step), [*map(str, fields)])
      )
    fields[step] = _replaced(fields.get(step), inner, name)
  if isinstance(value, Mapping):
    return fields
  if not dataclasses.is_dataclass(value):
    return tuple(fields.values())
  try:
    return type(value)(**fields)
  except ValueError as error:
    raise annotations.ConfigError(f'{path}: {error}') from error
