"""Which model it is: a hash of its module's config and of all variables."""

import hashlib
import json
from typing import Any

import flax
import jax
import numpy as np

from audiolm_jax import config
from audiolm_jax.config import relocation
from audiolm_jax.tokenizers import base as tokenizers_base


class Fingerprint:
  """sha256 of a model, whose leaves are added one by one in their tree's order.

  Of paths in the config the last name counts, so that a model may move.
  """

  def __init__(self, module: Any, rate: float | None = None):
    """Starts with what is known without variables.

    Args:
      module: a tokenizer or a decoder.
      rate: frames or samples a second; None for a tokenizer.
    """
    cls = type(module)
    described = {
        'class': cls.__name__,
        'config': relocation.names_only(cls, config.identity(module)),
    }
    if isinstance(module, tokenizers_base.Tokenizer):
      described['spec'] = module.spec.to_dict()
    else:
      described['rate'] = rate
    self._digest = hashlib.sha256(
        json.dumps(described, sort_keys=True).encode()
    )

  def add(self, path: Any, leaf: np.ndarray) -> None:
    """Takes in a leaf; `path` is its jax key path."""
    name = f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'
    self._digest.update(name.encode())
    self._digest.update(raw(leaf))

  def hexdigest(self) -> str:
    return self._digest.hexdigest()


def of(module: Any, variables: Any, rate: float | None = None) -> str:
  """The fingerprint of a whole model.

  Args:
    module: a tokenizer or a decoder.
    variables: {'params', 'state'}; boxed or not.
    rate: frames or samples a second; None for a tokenizer.
  """
  fingerprint = Fingerprint(module, rate)
  variables = flax.core.meta.unbox(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    fingerprint.add(path, np.asarray(leaf))
  return fingerprint.hexdigest()


def raw(array: np.ndarray) -> np.ndarray:
  """The bytes of an array, without a copy where they lie in order."""
  # bfloat16 has no buffer protocol, a scalar no view of another size.
  return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
