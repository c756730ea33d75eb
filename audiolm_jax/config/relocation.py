"""The paths in a config: as a program gives them, and as a file keeps them."""

from collections.abc import Mapping
import dataclasses
import os
import typing
from typing import Any

from audiolm_jax import config
from audiolm_jax.config import classes


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


def names_only(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
  """A config's values with the last name of each path, wherever it lies."""
  return _with_paths(cls, values, lambda _, path: os.path.basename(path))


def _with_paths(annotation, value, change):
  """A value with `change(Path, value)` in place of each path in it.

  What does not fit the annotation stays as it is, for `build` to refuse.
  """
  base, metadata, _ = config.unwrap(annotation)
  for item in metadata:
    if isinstance(item, config.Path) and isinstance(value, str) and value:
      return change(item, value)
    if isinstance(item, config.Kind) and config.is_group(value):
      base = classes.class_of(item.table(), value.get('kind'))
    if isinstance(item, config.Named) and config.is_group(value):
      return {k: _with_paths(item.value, v, change) for k, v in value.items()}
  if config.is_group(value) and dataclasses.is_dataclass(base):
    fields = config.schema(base)
    return {
        k: _with_paths(fields[k][1], v, change) if k in fields else v
        for k, v in value.items()
    }
  if typing.get_origin(base) is tuple and isinstance(value, (tuple, list)):
    element = typing.get_args(base)[0]
    return tuple(_with_paths(element, entry, change) for entry in value)
  return value
