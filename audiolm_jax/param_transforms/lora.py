"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.ops import weights
from audiolm_jax.param_transforms import base as param_transforms_base

# All but matrices that are 0 at the start: those of FiLM and AdaLN, and of a
# decoder that denoises the last one, and the last one of its second time.
_ADAPTED = r'^(?!.*_modulation$)(?!(.*/)?(denoised|jump/outer)$)'


@dataclasses.dataclass(frozen=True)
class Lora(param_transforms_base.ParamTransform):
  """Trains w + (alpha / rank) a b in a and b only; b starts at zero.

  The base weight stays as it is (and may be packed), the update is multiplied
  factor by factor where the weight is used (`ops.products`), and the optimizer
  holds state for a and b alone.

  Attributes:
    rank: of the update.
    alpha: scale of the update times rank; 2 * rank is a common choice.
    targets: regular expressions of the weights to adapt, found anywhere in
      their path; only matrices (and stacks of them) can be adapted. By default
      all but those that are 0 at the start: FiLM's, AdaLN's, and of a decoder
      that denoises the last one, and its second time's. ('',) is all.
    train: regular expressions of weights that train in full beside.
  """

  rank: config.Positive = 16
  alpha: config.NonNegative = 32.0
  targets: tuple[str, ...] = (_ADAPTED,)
  train: tuple[str, ...] = ()

  def init(self, rng, params, axes):
    """Wraps the targets.

    Raises:
      ValueError: if a pattern matches nothing, or nothing that is a matrix.
    """
    targets = param_transforms_base.matching(params, self.targets)
    full = param_transforms_base.matching(params, self.train)
    flat, treedef = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=weights.is_weight
    )
    names = treedef.flatten_up_to(axes)
    leaves = []
    for index, ((keys, leaf), leaf_axes) in enumerate(
        zip(flat, names, strict=True)
    ):
      path = param_transforms_base.path_of(keys)
      if path in targets and path not in full and _is_matrix(leaf_axes):
        leaf = self._wrap(jax.random.fold_in(rng, index), leaf, leaf_axes)
      leaves.append(leaf)
    if not any(isinstance(leaf, weights.LoraTensor) for leaf in leaves):
      raise ValueError(f'targets {self.targets} match vectors only')
    return jax.tree_util.tree_unflatten(treedef, leaves)

  def axes(self, axes):
    # The same choice as in `init`, made on the names alone.
    targets = param_transforms_base.matching(_as_leaves(axes), self.targets)
    full = param_transforms_base.matching(_as_leaves(axes), self.train)

    def wrap(keys, leaf):
      path = param_transforms_base.path_of(keys)
      if path not in targets or path in full or not _is_matrix(leaf):
        return leaf
      batch = leaf[: _batch_dims(leaf)]
      return weights.LoraTensor(
          w=leaf,
          a=(*leaf[:-1], None),
          b=(*batch, None, leaf[-1]),
          scale=self.alpha / self.rank,
      )

    return jax.tree_util.tree_map_with_path(wrap, axes, is_leaf=_is_names)

  def split(self, params):
    full = param_transforms_base.matching(params, self.train)

    def trainable(keys, leaf):
      if isinstance(leaf, weights.LoraTensor):
        return leaf.replace(w=param_transforms_base.holes(leaf.w))
      return (
          leaf
          if param_transforms_base.path_of(keys) in full
          else param_transforms_base.holes(leaf)
      )

    def frozen(keys, leaf):
      if isinstance(leaf, weights.LoraTensor):
        return leaf.replace(a=None, b=None)
      return (
          param_transforms_base.holes(leaf)
          if param_transforms_base.path_of(keys) in full
          else leaf
      )

    return tuple(
        jax.tree_util.tree_map_with_path(f, params, is_leaf=weights.is_weight)
        for f in (trainable, frozen)
    )

  def _wrap(self, rng, leaf, names):
    shape = leaf.shape
    batch = shape[: _batch_dims(names)]
    inputs = shape[len(batch) : -1]
    bound = 1 / math.sqrt(math.prod(inputs))
    a = jax.random.uniform(
        rng, (*shape[:-1], self.rank), jnp.float32, -bound, bound
    )
    b = jnp.zeros((*batch, self.rank, shape[-1]), jnp.float32)
    return weights.LoraTensor(w=leaf, a=a, b=b, scale=self.alpha / self.rank)


def merge_update(params):
  """Folds every low-rank update into its base weight (export, fast inference)."""
  return weights.map_weights(
      lambda w: (
          weights.materialize(w) if isinstance(w, weights.LoraTensor) else w
      ),
      params,
  )


def _batch_dims(names) -> int:
  """Leading axes over which a weight is a stack of matrices."""
  count = 0
  while count < len(names) and names[count] in weights.BATCH_AXES:
    count += 1
  return count


def _is_matrix(names) -> bool:
  return len(names) - _batch_dims(names) >= 2


def _is_names(x) -> bool:
  return isinstance(x, tuple)


def _as_leaves(axes):
  """The tree of names with each tuple as one opaque leaf."""
  return jax.tree.map(lambda _: 0, axes, is_leaf=_is_names)
