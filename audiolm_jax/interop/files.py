"""Directories with config.json and model.safetensors, read without torch."""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from audiolm_jax.interop import base
from audiolm_jax.training import writers

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
DIFFUSERS = 'diffusion_pytorch_model.safetensors'  # what diffusers calls it
INDEX = 'model.safetensors.index.json'


def read(
    directory: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(config, tensors) of a directory; sharded files too.

  Tensors of numbers are float32; packed ones (uint8) stay as they are.

  Raises:
    base.PretrainedError: naming the file that is missing or damaged.
  """
  directory = pathlib.Path(directory)
  config = _json(directory / CONFIG)
  stored = [n for n in (WEIGHTS, DIFFUSERS) if (directory / n).exists()]
  names = stored[:1] or [WEIGHTS]
  if (directory / INDEX).exists():
    names = sorted(set(_json(directory / INDEX)['weight_map'].values()))
  tensors = {}
  for name in names:
    path = directory / name
    if not path.exists():
      raise base.PretrainedError(
          f'{path} is missing. Weights must be in safetensors; convert a torch'
          ' file where torch is installed with safetensors.torch.save_file.'
      )
    try:
      with safetensors.safe_open(path, 'numpy') as file:
        for key in file.keys():
          tensors[key] = _float(file.get_tensor(key))
    except safetensors.SafetensorError as error:
      raise base.PretrainedError(f'{path}: {error}') from error
  return config, tensors


def write(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> None:
  """Writes both files, each whole or not at all."""
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  data = safetensors.numpy.save(dict(tensors), metadata={'format': 'pt'})
  writers.write_atomically(directory / WEIGHTS, data)
  writers.write_atomically(
      directory / CONFIG, json.dumps(config, indent=2, sort_keys=True) + '\n'
  )


def _json(path):
  try:
    return json.loads(path.read_text('utf-8'))
  except FileNotFoundError as error:
    raise base.PretrainedError(f'{path} is missing.') from error
  except ValueError as error:
    raise base.PretrainedError(f'{path} is not JSON: {error}') from error


def _float(array):
  return array if array.dtype == np.uint8 else np.asarray(array, np.float32)
