"""The Evaluator seam: item by item, so that arms of a comparison pair up."""

import abc
from collections.abc import Iterable, Iterator
import dataclasses
from typing import Any, NamedTuple

from jaxtyping import Int
import numpy as np

from audiolm_jax.objectives import base as objectives_base


class Score(NamedTuple):
  """One number about one item.

  Attributes:
    name: of the metric.
    item: id of the clip (or sequence, or pair), stable across runs.
    sum: the metric times its weight.
    weight: frames, positions, words ... that the sum runs over.
    along: where the score is a point of a curve: what x is, and x. ('frame', 8)
      of 'bits_per_frame' is a point of the curve 'bits_per_frame by frame'.
  """

  name: str
  item: str
  sum: float
  weight: float
  along: tuple[str, float] | None = None


class Evaluator(abc.ABC):
  """Scores variables on a fixed set of held-out items."""

  @abc.abstractmethod
  def run(self, variables: objectives_base.Variables) -> Iterator[Score]:
    """Scores of every item; `variables` as the objective takes them."""


class Clips(abc.ABC):
  """Clips that are open."""

  @abc.abstractmethod
  def batches(self) -> Iterator[dict[str, np.ndarray]]:
    """Each clip once, in batches as the decoder reads them.

    Yields:
      Entries of the rows, among them `id` [B]: the clip's index, or -1 for a row
      that fills up.
    """

  @abc.abstractmethod
  def item(self, index: int) -> str:
    """The id of a clip, which stays the same across runs."""

  @abc.abstractmethod
  def baselines(self, index: int) -> dict[str, Any]:
    """Bits of a clip under other models, by the prefix of their metrics.

    Of frames [F, K] for each code, of samples [] in all; empty where there are
    no other models of such clips.
    """


def summarize(scores: Iterable[Score]) -> dict[str, float]:
  """sum / weight of each metric over all items (micro-average).

  Points of curves are left to `curves`.
  """
  means = _means((s.name, s) for s in scores if s.along is None)
  return dict(means)


def curves(scores: Iterable[Score]) -> dict[str, list[tuple[float, float]]]:
  """The curves of scores: 'METRIC by X' -> (x, micro-average there), ascending.

  Args:
    scores: of all items; those that are no points of curves are left out.
  """
  found: dict[str, list[tuple[float, float]]] = {}
  points = ((s, s.along) for s in scores if s.along is not None)
  for (name, x), mean in _means(
      ((f'{s.name} by {what}', x), s) for s, (what, x) in points
  ):
    found.setdefault(name, []).append((x, mean))
  return {name: sorted(points) for name, points in found.items()}


def _means(scores) -> Iterator[tuple[Any, float]]:
  """(key, sum / weight) of (key, score), where there is weight."""
  totals: dict[Any, list[float]] = {}
  for key, score in scores:
    total = totals.setdefault(key, [0.0, 0.0])
    total[0] += score.sum
    total[1] += score.weight
  for key, (total, weight) in totals.items():
    if weight:
      yield key, total / weight


def with_cache(settings: Any, source: Any) -> Any:
  """Settings with the cache of `source` (config.data) if they name none."""
  if settings.cache is not None:
    return settings
  return dataclasses.replace(settings, cache=getattr(source, 'cache', None))


def spaced(count: int, limit: int | None) -> Int[np.ndarray, ' n']:
  """At most `limit` of `count` indices, evenly spaced; None for all."""
  size = count if limit is None else min(limit, count)
  return np.linspace(0, count - 1, size).round().astype(int)
