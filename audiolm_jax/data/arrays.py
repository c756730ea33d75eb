"""Arrays in .npy files that anyone may have written."""

import os
import tokenize

import numpy as np

from audiolm_jax import config

_MAGIC = b'\x93NUMPY'


def load(path: str | os.PathLike) -> np.ndarray:
  """A file's array of numbers, mapped: only what is used is read.

  Raises:
    config.ConfigError: naming the file, if it is damaged, or of another kind.
  """
  try:
    with open(path, 'rb') as file:
      if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError('it is no .npy file')
    array = np.load(path, mmap_mode='r')
  except (
      ValueError,
      OSError,
      EOFError,
      OverflowError,
      TypeError,
      # Numpy reads a header as Python.
      SyntaxError,
      tokenize.TokenError,
  ) as error:
    raise config.ConfigError(f'{path} can not be read: {error}.') from error
  if array.dtype.kind not in 'fiu':
    raise config.ConfigError(f'{path} holds {array.dtype}, not numbers.')
  return array
