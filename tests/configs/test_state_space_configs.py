"""The quickstart's backbones of state spaces build and match it."""

import flax.linen as nn
import jax
import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.config import diff
from configs.lm import quickstart
from configs.lm import state_spaces

NAMES = list(state_spaces.VARIANTS)


def _millions(values):
  """Parameters of the backbone."""
  values = config.replace(values, {'objective.init_embeddings': False})
  objective = config.build(train.Config, values).objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  leaves = jax.tree.leaves(shapes['lm']['params']['backbone'])
  return sum(leaf.size for leaf in leaves) / 1e6


@pytest.mark.parametrize('name', NAMES)
def test_only_the_backbone_differs_and_its_size_does_not(name):
  values = state_spaces.get_config(f'{name},cpu')
  base = quickstart.get_config('cpu')
  lines = diff.lines(base, values)
  assert lines
  for line in lines:
    assert line.startswith('config.objective.decoder.backbone.'), line
  assert _millions(values) == pytest.approx(_millions(base), rel=0.04)


@pytest.mark.parametrize('name', NAMES)
def test_the_other_sizes_build(name):
  assert _millions(state_spaces.get_config(f'{name},smoke')) < 0.3
  assert _millions(state_spaces.get_config(f'{name},gpu')) > 3
