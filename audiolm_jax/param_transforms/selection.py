"""Whole weights that train or do not: `Full` and `Frozen`."""

import dataclasses

from audiolm_jax.param_transforms import base as param_transforms_base


@dataclasses.dataclass(frozen=True)
class Full(param_transforms_base.ParamTransform):
  """Everything trains."""

  def split(self, params):
    return param_transforms_base.split_by(params, lambda path: True)


@dataclasses.dataclass(frozen=True)
class Frozen(param_transforms_base.ParamTransform):
  """What matches a pattern keeps its value; the rest trains.

  Attributes:
    patterns: regular expressions, found anywhere in a path such as
      'backbone/layers/block_0/mixer/query'. The default freezes all.
  """

  patterns: tuple[str, ...] = ('',)

  def split(self, params):
    frozen = param_transforms_base.matching(params, self.patterns)
    return param_transforms_base.split_by(
        params, lambda path: path not in frozen
    )
