"""The Evaluator seam: item by item, so that arms of a comparison pair up."""

import abc
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from audiolm_jax.objectives import base as objectives_base


class Score(NamedTuple):
  """One number about one item.

  Attributes:
    name: of the metric.
    item: id of the clip (or sequence, or pair), stable across runs.
    sum: the metric times its weight.
    weight: frames, positions, words ... that the sum runs over.
  """

  name: str
  item: str
  sum: float
  weight: float


class Evaluator(abc.ABC):
  """Scores variables on a fixed set of held-out items."""

  @abc.abstractmethod
  def run(self, variables: objectives_base.Variables) -> Iterator[Score]:
    """Scores of every item; `variables` as the objective takes them."""


def summarize(scores: Iterable[Score]) -> dict[str, float]:
  """sum / weight of each metric over all items (micro-average)."""
  totals: dict[str, list[float]] = {}
  for score in scores:
    total = totals.setdefault(score.name, [0.0, 0.0])
    total[0] += score.sum
    total[1] += score.weight
  return {name: s / w for name, (s, w) in totals.items() if w}
