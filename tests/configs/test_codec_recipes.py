"""Every codec recipe builds in all its sizes, and its smallest trains."""

import importlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.training import config_files

# Millions of parameters of the codec at the size 'gpu', and its kbit/s (0:
# continuous).
RECIPES = {
    'dac_44khz': (76.7, 7.75),
    'encodec_24khz': (14.7, 24.0),
    'fsq_16khz': (122.8, 0.8),
    'mimi_24khz': (79.3, 4.4),
    'speechtokenizer_16khz': (103.7, 4.0),
    'vae_16khz': (38.3, 0.0),
    'vocos_16khz': (71.7, 0.6),
}


def _config(name, size):
  return importlib.import_module(f'configs.codec.{name}').get_config(size)


@pytest.mark.parametrize('name', sorted(RECIPES))
@pytest.mark.parametrize('size', config_files.SIZES)
def test_a_recipe_builds(name, size):
  """As shapes: nothing is compiled. Every size trains the same models."""
  values = _config(name, size)
  settings = resolution.resolve(config.build(train.Config, values))
  objective = settings.objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(values.models)
  codec = objective.tokenizer
  assert str(codec.sample_rate // 1000) in name
  assert objective.samples >= codec.hop
  if size == 'gpu':
    leaves = jax.tree.leaves(shapes['codec']['params'])
    parameters = sum(leaf.size for leaf in leaves)
    millions, kilobits = RECIPES[name]
    assert parameters / 1e6 == pytest.approx(millions, abs=0.1)
    assert codec.spec.bits_per_second / 1e3 == pytest.approx(kilobits, abs=0.01)


@pytest.mark.parametrize(
    'name, size, field, value',
    [
        ('fsq_16khz', 'smoke', 'sample_rate', 24000),
        ('speechtokenizer_16khz', 'gpu', 'feature_rate', 49.0),
    ],
)
def test_rates_of_batches_are_those_of_the_objective(name, size, field, value):
  """No array tells 16 from 24 kHz."""
  values = config.replace(_config(name, size), {f'data.{field}': value})
  with pytest.raises(config.ConfigError, match=f'{field} = {value}'):
    resolution.resolve(config.build(train.Config, values))


def _train(name, workdir):
  settings = config.replace(
      _config(name, 'smoke'), {'steps': 2, 'eval_every': 2}
  )
  results = train.train(settings, workdir)
  assert np.isfinite(results['loss'])


def test_a_smoke_run_trains(cache, tmp_path):
  _train('fsq_16khz', tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(RECIPES) - {'fsq_16khz'}))
def test_every_smoke_run_trains(cache, tmp_path, name):
  _train(name, tmp_path)
