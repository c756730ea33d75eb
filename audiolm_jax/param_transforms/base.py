"""The ParamTransform seam: which parameters train, and in which form.

A transform may replace leaves of a freshly made (or loaded) parameter tree by
other kinds of leaf (`init`), and divides the tree into what gradients reach and
what they do not (`split`). Both halves keep the tree's structure, with None in
the holes, so that an optimizer's state exists only for what trains and `merge`
needs no bookkeeping.
"""

import abc
from collections.abc import Sequence
import re
from typing import Any

import jax

from audiolm_jax.ops import weights

Tree = Any


class ParamTransform(abc.ABC):
  """How one model's parameters train."""

  def init(self, rng: jax.Array, params: Tree, axes: Tree) -> Tree:
    """The parameters with this transform's leaves in place.

    Args:
      rng: for new leaves.
      params: unboxed parameters.
      axes: the same tree with a tuple of logical axis names for each leaf.
    """
    del rng, axes
    return params

  def axes(self, axes: Tree) -> Tree:
    """The axis names of `init`'s result, with the same kinds of leaf."""
    return axes

  @abc.abstractmethod
  def split(self, params: Tree) -> tuple[Tree, Tree]:
    """(trainable, frozen): the same structure twice, None in the holes."""

  def merge(
      self, trainable: Tree, frozen: Tree, rng: jax.Array | None = None
  ) -> Tree:
    """The inverse of `split`; `rng` is for transforms that add noise."""
    del rng
    return combine(trainable, frozen)


def combine(trainable: Tree, frozen: Tree) -> Tree:
  """Fills the holes of one tree with the other's leaves."""
  return jax.tree.map(
      lambda t, f: f if t is None else t,
      trainable,
      frozen,
      is_leaf=lambda x: x is None,
  )


def path_of(keys: Sequence[Any]) -> str:
  """'layers/attention/query' from a jax key path."""
  return '/'.join(str(getattr(k, 'key', getattr(k, 'name', k))) for k in keys)


def paths(tree: Tree) -> list[str]:
  """The path of each weight, a low-rank or packed one counting once."""
  flat, _ = jax.tree_util.tree_flatten_with_path(
      tree, is_leaf=weights.is_weight
  )
  return [path_of(keys) for keys, _ in flat]


def matching(tree: Tree, patterns: Sequence[str]) -> set[str]:
  """The paths of `tree` in which some regular expression is found.

  Raises:
    ValueError: for a pattern that is found in no path, or is not a valid one.
  """
  known = paths(tree)
  matched = set()
  for pattern in patterns:
    try:
      expression = re.compile(pattern)
    except re.error as error:
      raise ValueError(
          f'{pattern!r} is not a regular expression: {error}'
      ) from error
    hits = {path for path in known if expression.search(path)}
    if not hits:
      listing = '\n  '.join(known)
      raise ValueError(
          f'the pattern {pattern!r} matches no parameter. Parameters:\n '
          f' {listing}'
      )
    matched |= hits
  return matched


def split_by(params: Tree, trains) -> tuple[Tree, Tree]:
  """Splits whole weights: `trains(path) -> bool`."""

  def side(wanted):
    def keep(keys, leaf):
      return leaf if trains(path_of(keys)) == wanted else holes(leaf)

    return jax.tree_util.tree_map_with_path(
        keep, params, is_leaf=weights.is_weight
    )

  return side(True), side(False)


def holes(leaf: Tree) -> Tree:
  """`leaf` with None in the place of each of its arrays."""
  return jax.tree.map(lambda _: None, leaf)
