"""The batch source seam: where a training loop's batches come from."""

import abc
from typing import Any

import numpy as np


class BatchSource(abc.ABC):
  """An endless, resumable stream of host batches.

  A batch maps names to arrays whose first axis is this process's share of the
  global batch. `id` [B] int32 (an example's index in its split) stands in every
  batch from a corpus. Data pipelines ignore the argument of `next`; a rollout
  source generates with it.
  """

  @abc.abstractmethod
  def next(self, train_state: Any) -> dict[str, np.ndarray]:
    """The next batch."""

  @abc.abstractmethod
  def get_state(self) -> dict[str, Any]:
    """A JSON-able position; `set_state` goes back to it exactly."""

  @abc.abstractmethod
  def set_state(self, state: dict[str, Any]) -> None:
    """Continues from a state of `get_state`, in this process or another."""

  def close(self) -> None:
    """Stops workers and frees what they hold."""
