"""Every WaveNet config builds in all its sizes, and the smallest trains."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.models import loading
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.config import diff
from audiolm_jax.training import config_files
from configs.lm import wavenet

# Millions of parameters of the model at the size 'gpu'.
HEADS = {'mu_law': 3.608, 'logistics': 3.517, 'gaussian': 3.510}


@pytest.mark.parametrize('name', sorted(HEADS))
@pytest.mark.parametrize('size', config_files.SIZES)
def test_it_builds(name, size):
  """As shapes: nothing is compiled."""
  values = wavenet.get_config(f'{name},{size}')
  settings = resolution.resolve(config.build(train.Config, values))
  objective = settings.objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(values.models)
  decoder = objective.decoder
  assert decoder.bits == 16
  assert objective.lengths['samples'] > decoder.stack.receptive_field
  if size == 'gpu':
    leaves = jax.tree.leaves(shapes['lm']['params'])
    assert sum(leaf.size for leaf in leaves) / 1e6 == pytest.approx(
        HEADS[name], abs=1e-3
    )


def test_they_differ_in_the_head_and_its_input_only():
  for name in ('logistics', 'gaussian'):
    lines = diff.lines(wavenet.get_config('mu_law'), wavenet.get_config(name))
    fields = {line.partition(':')[0] for line in lines}
    prefix = 'config.objective.decoder'
    assert f'{prefix}.inputs' in fields
    assert all(
        field == f'{prefix}.inputs' or field.startswith(f'{prefix}.head.')
        for field in fields
    )


def test_a_smoke_run_trains_and_comes_back(cache, tmp_path):
  results = train.train(wavenet.get_config('logistics,smoke'), tmp_path)
  assert np.isfinite(results['loss'])
  for name in ('', 'flac/', 'linear/'):
    assert 0 < results[f'eval/bits/{name}bits_per_sample'] < 17
  bound = loading.load(tmp_path)
  audio = bound.generate(np.zeros((1, 10, 1)), 0.005)
  assert audio.shape == (1, 40, 1)
  assert np.isfinite(bound.bits_per_sample(audio)).all()
