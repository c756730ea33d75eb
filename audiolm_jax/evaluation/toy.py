"""The toy objective's error on fixed examples, one score an example."""

import dataclasses

import jax
import numpy as np

from audiolm_jax.data import synthetic
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.ops import sharding


@dataclasses.dataclass(frozen=True)
class ToyError:
  """Squared error without noise on `items` held-out examples."""

  items: int = 16

  def build(self, objective) -> evaluation_base.Evaluator:
    return _Evaluator(objective, self.items)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, objective, items):
    source = synthetic.Synthetic(objective.features, objective.positions)
    # Training seeds are far below.
    opened = source.open(batch_size=items, seed=2**31, shard=(0, 1))
    self._batch = opened.next(None)
    self._predict = jax.jit(lambda *x: sharding.whole(objective.predict(*x)))

  def run(self, variables):
    estimate = np.asarray(self._predict(variables, self._batch['x']))
    for i, length in enumerate(self._batch['lengths']):
      error = estimate[i, :length] - self._batch['y'][i, :length]
      total = float(np.sum(error**2))
      yield evaluation_base.Score(
          'squared_error', f'item{i}', total, float(length)
      )
