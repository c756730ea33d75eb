"""A codec's steps with the state that they hand on: blocks of one size."""

from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import Bool, Shaped
import numpy as np

from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.tokenizers import base as tokenizers_base


class Stepper:
  """One of a codec's step forms, on host arrays, block by block.

  All blocks are padded to one size, so that the step compiles once.

  Attributes:
    size: samples (to encode) or frames (to decode) of a whole block.
  """

  def __init__(
      self,
      tokenizer: tokenizers_base.Tokenizer,
      variables: tokenizers_base.Variables,
      way: Literal['encode', 'decode'],
      step: Callable[..., Any],
      size: int,
  ):
    """Before the first block.

    Args:
      tokenizer: a codec that has steps.
      variables: its variables, unboxed.
      way: which step.
      step: `tokenizer.encode_step` or `decode_step`, compiled.
      size: samples or frames of a whole block.
    """
    self._tokenizer, self._variables = tokenizer, variables
    self._way, self._step, self.size = way, step, size
    self._state = None

  def __call__(
      self, block: Shaped[np.ndarray, 'R n *d']
  ) -> tuple[Shaped[np.ndarray, 'R m *e'], Bool[np.ndarray, 'R m']]:
    """The step's output for a block of n <= `size`, and what of it is valid."""
    rows, count = block.shape[:2]
    missing = self.size - count
    padding = ((0, 0), (0, missing), *[(0, 0)] * (block.ndim - 2))
    mask = np.zeros((rows, self.size), bool)
    mask[:, :count] = True
    if self._state is None:
      self._state = self._begin(rows)
    output, valid, self._state = self._step(
        self._variables, np.pad(block, padding), mask, self._state
    )
    return np.asarray(output), np.asarray(valid)

  def reset(self, rows: Bool[np.ndarray, 'R']) -> None:
    """Rows begin anew."""
    if self._state is not None:
      fresh = self._begin(len(rows))
      self._state = streaming_base.pick_rows(rows, fresh, self._state)

  def _begin(self, rows):
    return self._tokenizer.initial_state(rows)[self._way]
