"""Directories with config.json and model.safetensors, read without torch.

A pipeline of diffusers is a folder of such directories, one a component, and a
model_index.json that names them. It is read as one config, with the component's
objects by their names, and tensors whose names begin with 'COMPONENT.'.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.training import writers

CONFIG = fields.CONFIG
WEIGHTS = 'model.safetensors'
DIFFUSERS = 'diffusion_pytorch_model.safetensors'  # what diffusers calls it
INDEX = 'model.safetensors.index.json'
PIPELINE = 'model_index.json'
# What transformers begins and ends texts with.
GENERATION = 'generation_config.json'
# safetensors' names of the types that are read: of numbers, and of others.
_NUMBERS = ('F64', 'F32', 'F16', 'BF16')
_OTHERS = ('I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'U8', 'BOOL')


class Stored:
  """A tensor in a file, which `numpy.asarray` reads.

  Numbers become float32; integers, such as packed ones, stay as they are.

  Attributes:
    shape: as the file's header has it.
  """

  def __init__(self, path: pathlib.Path, file: Any, name: str):
    self._path, self._file, self._name = path, file, name
    header = file.get_slice(name)
    self.shape = tuple(header.get_shape())
    self._kind = header.get_dtype()

  @property
  def elements(self) -> int:
    """Numbers that it may hold: bytes may hold two each."""
    return math.prod(self.shape) * (1 if self._kind in _NUMBERS else 2)

  def __array__(self, dtype=None, copy=None):
    del copy  # It is always read anew.
    if self._kind not in _NUMBERS + _OTHERS:
      raise interop_base.PretrainedError(
          f'{self._path}: {self._name} is of type {self._kind}, which is not'
          f' supported: only {", ".join(_NUMBERS)}'
      )
    try:
      array = self._file.get_tensor(self._name)
    except safetensors.SafetensorError as error:
      raise interop_base.PretrainedError(f'{self._path}: {error}') from error
    if self._kind in _NUMBERS:
      # What is too large becomes infinite, which loading refuses.
      with np.errstate(over='ignore'):
        array = np.asarray(array, np.float32)
    return array if dtype is None else array.astype(dtype)


def is_pretrained(directory: str | os.PathLike) -> bool:
  """Whether a directory holds weights by one of the names that are read."""
  names = (WEIGHTS, INDEX, DIFFUSERS, PIPELINE)
  return any((pathlib.Path(directory) / name).exists() for name in names)


def scan(
    directory: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, Stored]]:
  """(config, tensors by name) of a directory, of which only headers are read.

  Where there is one file and an index of shards, the file is taken, as
  transformers does.

  Raises:
    base.PretrainedError: naming the file that is missing or damaged.
  """
  directory = pathlib.Path(directory)
  if not _there(directory / CONFIG) and _there(directory / PIPELINE):
    return _components(directory)
  config = fields.read(directory / CONFIG)
  stored = [n for n in (WEIGHTS, INDEX, DIFFUSERS) if _there(directory / n)]
  if stored[:1] == [INDEX]:
    return config, _shards(directory)
  path = directory / (stored[0] if stored else WEIGHTS)
  return config, _header(path)


def read(
    directory: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """`scan`, and all tensors read."""
  config, tensors = scan(directory)
  return config, {name: np.asarray(t) for name, t in tensors.items()}


def limits(tensors: Mapping[str, Stored]) -> fields.Limits:
  """What a config.json may say of these."""
  return fields.Limits(
      len(tensors), max((t.elements for t in tensors.values()), default=0)
  )


def generation(directory: str | os.PathLike) -> dict[str, Any]:
  """generation_config.json, or nothing where there is none.

  Raises:
    base.PretrainedError: if it is damaged.
  """
  path = pathlib.Path(directory) / GENERATION
  return fields.read(path) if _there(path) else {}


def write(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> None:
  """Writes both files, each whole or not at all; those of each component.

  Args:
    directory: is made.
    config: as `scan` gives it.
    tensors: by name.
  """
  directory = pathlib.Path(directory)
  if str(config.get('_class_name')).endswith('Pipeline'):
    _write_components(directory, config, tensors)
  else:
    _write(directory, config, tensors, WEIGHTS)


def _write(directory, config, tensors, name):
  directory.mkdir(parents=True, exist_ok=True)
  data = safetensors.numpy.save(dict(tensors), metadata={'format': 'pt'})
  writers.write_atomically(directory / name, data)
  writers.write_atomically(directory / CONFIG, _json(config))


def _json(values):
  return json.dumps(values, indent=2, sort_keys=True) + '\n'


def _components(directory):
  """`scan` of a pipeline: of its components that have a config.json."""
  path = directory / PIPELINE
  index = fields.read(path)
  config, tensors = {}, {}
  for name, value in index.items():
    if not isinstance(value, list):
      config[name] = value
      continue
    if not _plain(name) or '.' in name:
      raise interop_base.PretrainedError(
          f'{path}: {fields.shown(name)}: expected the name of a folder in this'
          ' directory'
      )
    # A scheduler and a tokenizer have none.
    if _there(directory / name / CONFIG):
      config[name], inner = scan(directory / name)
      tensors |= {f'{name}.{key}': tensor for key, tensor in inner.items()}
  return config, tensors


def _write_components(directory, config, tensors):
  parts = {k: v for k, v in config.items() if isinstance(v, dict)}
  index = {k: v for k, v in config.items() if k not in parts}
  for name, part in parts.items():
    own = {
        key.removeprefix(f'{name}.'): value
        for key, value in tensors.items()
        if key.startswith(f'{name}.')
    }
    kind = part.get('_class_name')
    _write(directory / name, part, own, DIFFUSERS if kind else WEIGHTS)
    library = 'diffusers' if kind else 'transformers'
    index[name] = [library, kind or part['architectures'][0]]
  writers.write_atomically(directory / PIPELINE, _json(index))


def _there(path):
  try:
    return path.exists()
  except OSError as error:
    raise interop_base.PretrainedError(f'{path}: {error.strerror}') from error


def _header(path):
  if not _there(path):
    raise interop_base.PretrainedError(
        f'{path} is missing. Weights must be in safetensors; convert a torch'
        ' file where torch is installed with safetensors.torch.save_file.'
    )
  if not path.is_file():  # A folder, or what would never end.
    raise interop_base.PretrainedError(f'{path} is no file.')
  try:
    file = safetensors.safe_open(path, 'numpy')
    return {name: Stored(path, file, name) for name in file.keys()}
  except (OSError, safetensors.SafetensorError) as error:
    raise interop_base.PretrainedError(f'{path}: {error}') from error


def _shards(directory):
  """Tensors of the files that an index names."""
  path = directory / INDEX
  index = fields.read(path).get('weight_map')
  if not isinstance(index, dict) or not index:
    raise interop_base.PretrainedError(
        f'{path}: weight_map = {fields.shown(index)}: expected an object of'
        " tensors' names and files"
    )
  for name, shard in index.items():
    if not isinstance(shard, str) or not _plain(shard):
      raise interop_base.PretrainedError(
          f'{path}: weight_map.{name} = {fields.shown(shard)}: expected the'
          ' name of a file in this directory'
      )
  tensors, shards_of = {}, {}
  for shard in sorted(set(index.values())):
    for name, tensor in _header(directory / shard).items():
      if name in tensors:
        raise interop_base.PretrainedError(
            f'{path}: {name} is in {shards_of[name]} and in {shard}'
        )
      tensors[name], shards_of[name] = tensor, shard
  wrong = [n for n, shard in index.items() if shards_of.get(n) != shard]
  if wrong:
    listed = '\n  '.join(f'{name}: {index[name]}' for name in sorted(wrong))
    raise interop_base.PretrainedError(
        f'{path} has tensors where they are not:\n  {listed}'
    )
  return tensors


def _plain(name):
  """Whether a name is that of a file here, not a path to elsewhere."""
  separators = {'/', '\\'} & set(name)
  return name.isprintable() and not separators and name not in ('', '.', '..')
