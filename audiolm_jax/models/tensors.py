"""Files of tensors in the safetensors format, one tensor at a time.

A file is the length of a header (8 bytes, little-endian), the header (JSON: of
each tensor its type, shape and offsets) and the tensors' bytes. The library
writes one from a dict of all tensors; here each is written when it comes.
"""

from collections.abc import Iterable, Iterator, Mapping
import json
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from audiolm_jax.models import fingerprints
from audiolm_jax.training import writers

# The format's names of types.
_TYPES = {
    'bool': 'BOOL',
    'bfloat16': 'BF16',
    **{f'float{bits}': f'F{bits}' for bits in (16, 32, 64)},
    **{f'int{bits}': f'I{bits}' for bits in (8, 16, 32, 64)},
    **{f'uint{bits}': f'U{bits}' for bits in (8, 16, 32, 64)},
}
_NAMES = {there: here for here, there in _TYPES.items()}


class TensorFileError(ValueError):
  """A file that is no such file, or a damaged one."""


def write(
    path: pathlib.Path,
    specs: Mapping[str, jax.ShapeDtypeStruct],
    arrays: Iterable[np.ndarray],
) -> None:
  """Writes a file and waits until it is on the disk.

  Args:
    path: of the file.
    specs: what each tensor is, by name.
    arrays: the tensors in the order of `specs`; each is asked for when those
      before it are written.
  """
  header, end = {}, 0
  for name, spec in specs.items():
    start = end
    end += math.prod(spec.shape) * spec.dtype.itemsize
    header[name] = {
        'dtype': _TYPES[spec.dtype.name],
        'shape': list(spec.shape),
        'data_offsets': [start, end],
    }
  text = json.dumps(header, separators=(',', ':')).encode()
  # The format wants what follows to be aligned.
  text += b' ' * (-len(text) % 8)
  with writers.naming(path), path.open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for array in arrays:
      file.write(fingerprints.raw(array))
      del array  # Before the next one is made.
    file.flush()
    os.fsync(file.fileno())


def read(
    path: pathlib.Path,
) -> tuple[dict[str, jax.ShapeDtypeStruct], Iterator[tuple[str, np.ndarray]]]:
  """What a file holds, and its tensors, each read when it is asked for.

  Raises:
    TensorFileError: naming the file, if it is missing, or no such file.
  """
  try:
    if not path.is_file():
      raise TensorFileError(f'{path} is missing, or no file.')
    file = safetensors.safe_open(path, 'numpy')
    slices = {name: file.get_slice(name) for name in file.keys()}
    specs = {}
    for name, tensor in slices.items():
      kind = _NAMES.get(tensor.get_dtype())
      if kind is None:
        raise TensorFileError(
            f'{path}: {name} is of the type {tensor.get_dtype()}, which is none'
            f' of {sorted(_NAMES)}.'
        )
      specs[name] = jax.ShapeDtypeStruct(
          tuple(tensor.get_shape()), jnp.dtype(kind)
      )
  except (OSError, safetensors.SafetensorError) as error:
    raise TensorFileError(f'{path} is damaged: {error}') from error
  return specs, _tensors(path, file, list(specs))


def _tensors(path, file: Any, names) -> Iterator[tuple[str, np.ndarray]]:
  for name in names:
    try:
      yield name, file.get_tensor(name)
    except (OSError, safetensors.SafetensorError) as error:
      raise TensorFileError(f'{path} is damaged: {error}') from error
