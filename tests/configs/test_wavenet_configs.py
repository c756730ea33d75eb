"""Every WaveNet config builds in all its sizes, and the smallest trains."""

import importlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import loading
from audiolm_jax import train

# Millions of parameters of the full model.
HEADS = {'mu_law': 3.608, 'logistics': 3.517, 'gaussian': 3.510}


def _config(name, arg):
  return importlib.import_module(f'configs.lm.wavenet.{name}').get_config(arg)


@pytest.mark.parametrize('name', sorted(HEADS))
@pytest.mark.parametrize('arg', ['full', 'cpu', 'smoke'])
def test_it_builds(name, arg):
  """As shapes: nothing is compiled."""
  values = _config(name, arg)
  objective = config.build(train.Config, values).objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(values.models)
  decoder = objective.decoder
  assert decoder.bits == 16
  assert objective.samples > decoder.stack.receptive_field
  if arg == 'full':
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes['lm']['params']))
    assert size / 1e6 == pytest.approx(HEADS[name], abs=1e-3)


def test_they_differ_in_the_head_and_its_input_only():
  for name in ('logistics', 'gaussian'):
    lines = config.difference(
        _config('mu_law', 'cpu').to_dict(), _config(name, 'cpu').to_dict()
    )
    fields = {line.partition(':')[0] for line in lines}
    prefix = 'config.objective.decoder'
    assert f'{prefix}.inputs' in fields
    assert all(
        field == f'{prefix}.inputs' or field.startswith(f'{prefix}.head.')
        for field in fields
    )


def test_a_smoke_run_trains_and_comes_back(cache, tmp_path):
  results = train.train(_config('logistics', 'smoke'), tmp_path)
  assert np.isfinite(results['loss'])
  for name in ('', 'flac/', 'linear/'):
    assert 0 < results[f'eval/bits/{name}bits_per_sample'] < 17
  bound = loading.load(tmp_path)
  audio = bound.generate(np.zeros((1, 10, 1)), 0.005)
  assert audio.shape == (1, 40, 1)
  assert np.isfinite(bound.bits_per_sample(audio)).all()
