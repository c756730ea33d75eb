"""The train state: everything that moves on the device."""

from typing import Any

import flax
import jax
from jaxtyping import Array, Int, UInt32


class TrainState(flax.struct.PyTreeNode):
  """What a step reads and writes; trees are keyed by model first.

  Attributes:
    step: optimizer steps done.
    trainable: {model: params, None where frozen}.
    frozen: {model: params, None where trainable}.
    model_state: {model: state that statistics train (codebooks)}.
    optimizer_state: {model: optax state}, of the trainable leaves only.
    ema: {model: averaged trainable params}, for models that keep one.
    rng: key data of the run's random key; every step folds its number in.
  """

  step: Int[Array, '']
  trainable: dict[str, Any]
  frozen: dict[str, Any]
  model_state: dict[str, Any]
  optimizer_state: dict[str, Any]
  ema: dict[str, Any]
  rng: UInt32[Array, '2']

  def variables(self, transforms, ema: bool = True) -> dict[str, Any]:
    """Variables as an objective takes them.

    Args:
      transforms: {model: parameter transform}, whose `merge` is used.
      ema: take the averaged parameters of the models that keep them.
    """
    trainable = {**self.trainable, **self.ema} if ema else self.trainable
    return {
        model: {
            'params': transform.merge(trainable[model], self.frozen[model]),
            'state': self.model_state[model],
        }
        for model, transform in transforms.items()
    }


def size(tree: Any) -> int:
  """Numbers held by all leaves of a tree."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
