"""In what two configs differ."""

import dataclasses

import ml_collections

from audiolm_jax import config


def lines(old, new, path: str = 'config') -> list[str]:
  """Lines 'config.key: old -> new' for every leaf in which two configs differ.

  Args:
    old: an instance, a ConfigDict or a mapping.
    new: an instance, a ConfigDict or a mapping.
    path: what lines call them.
  """
  old, new = _plain(old), _plain(new)
  if isinstance(old, dict) and isinstance(new, dict):
    keys = [(f'{path}.{key}', key) for key in sorted({*old, *new})]
  elif _is_rows(old) and _is_rows(new) and len(old) == len(new):
    old, new = dict(enumerate(old)), dict(enumerate(new))
    keys = [(f'{path}[{index}]', index) for index in old]
  else:
    return [f'{path}: {old!r} -> {new!r}'] if old != new else []
  found = []
  for name, key in keys:
    if key in old and key in new:
      found += lines(old[key], new[key], name)
    else:
      pair = [repr(c[key]) if key in c else '(absent)' for c in (old, new)]
      found.append(f'{name}: {" -> ".join(pair)}')
  return found


def _is_rows(value) -> bool:
  """Whether a value is a list of groups."""
  return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _plain(value):
  """A config as JSON has it, which has no tuples."""
  if dataclasses.is_dataclass(value):
    value = config.to_config(value)
  if isinstance(value, ml_collections.ConfigDict):
    value = value.to_dict()
  if isinstance(value, (tuple, list)):
    return [_plain(entry) for entry in value]
  return value
