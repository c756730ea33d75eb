"""The quickstart's backbones of state spaces build and match it."""

import importlib

import flax.linen as nn
import jax
import pytest

from audiolm_jax import config
from audiolm_jax import train
from configs.lm import quickstart

NAMES = ('s4d', 'mamba2', 'rg_lru', 'hybrid', 'lstm')


def _config(name, arg):
  module = importlib.import_module(f'configs.lm.state_spaces.{name}')
  return module.get_config(arg)


def _millions(values):
  """Parameters of the backbone."""
  values.objective.codebooks = None
  objective = config.build(train.Config, values).objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  leaves = jax.tree.leaves(shapes['lm']['params']['backbone'])
  return sum(leaf.size for leaf in leaves) / 1e6


@pytest.mark.parametrize('name', NAMES)
def test_only_the_backbone_differs_and_its_size_does_not(name):
  values, base = _config(name, 'cpu'), quickstart.get_config('cpu')
  lines = config.difference(base, values)
  assert lines
  for line in lines:
    assert line.startswith('config.objective.decoder.backbone.'), line
  assert _millions(values) == pytest.approx(_millions(base), rel=0.04)


@pytest.mark.parametrize('name', NAMES)
def test_the_smoke_size_builds(name):
  assert _millions(_config(name, 'smoke')) < 0.3
