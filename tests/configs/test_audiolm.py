"""AudioLM's three stages are three configs over one loop."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.models import loading
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import token_cache
from audiolm_jax.training import config_files
from configs.lm import audiolm
from tests.configs import short_runs
from tests.data import made_caches

# The codebooks that each stage predicts.
STAGES = {'semantic': (0,), 'coarse': (1, 2, 3), 'fine': (4, 5, 6, 7)}


@pytest.mark.parametrize('name', STAGES)
@pytest.mark.parametrize('size', config_files.SIZES)
def test_a_stage_builds_and_predicts_its_codebooks(name, size):
  settings = config.build(train.Config, audiolm.get_config(f'{name},{size}'))
  settings = resolution.resolve(settings)
  objective = settings.objective
  assert objective.decoder.predicted == STAGES[name]
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(settings.models)
  assert settings.data.codebooks == len(objective.decoder.vocabularies)
  assert settings.data.frames == objective.lengths['frames']
  # A config that was written to a work directory is the same one.
  assert config.build(train.Config, config.to_config(settings)) == settings


def test_stages_divide_a_frames_codebooks_among_them():
  slots = [slot for stage in STAGES.values() for slot in stage]
  assert slots == list(range(8))


@pytest.fixture(scope='module', name='tokens')
def _tokens(tmp_path_factory):
  """A cache of made-up codes, 8 codebooks of 1024."""
  directory = tmp_path_factory.mktemp('audiolm') / 'tokens'
  clips = {'train': 6, 'validation': 3, 'test': 3}
  identity = made_caches.identity((1024,) * 8, clips)
  writer = token_cache.Writer(directory, identity)
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    examples = [
        made_caches.example(
            rng.integers(0, 1024, (rng.integers(5, 20), 8)).astype(np.int32),
            factors={'id': f'{split}{i}'},
        )
        for i in indices
    ]
    writer.write(split, part, examples)
  assert writer.finish()
  return directory


@pytest.mark.parametrize('name', ['coarse'])
def test_a_smoke_run_trains_and_is_scored(tokens, tmp_path, name):
  _train(name, tokens, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['semantic', 'fine'])
def test_every_smoke_run_trains(tokens, tmp_path, name):
  _train(name, tokens, tmp_path)


def _train(name, tokens, workdir):
  settings = short_runs.shrunk(audiolm.get_config(f'{name},smoke'), tokens)
  results = train.train(settings, workdir)
  assert np.isfinite(results['loss'])
  slots = STAGES[name]
  bits = [results[f'eval/lm/bits_per_frame_codebook_{slot}'] for slot in slots]
  assert results['eval/lm/bits_per_frame'] == pytest.approx(sum(bits), rel=1e-4)
  assert bits == pytest.approx([10.0] * len(slots), abs=1.0)
  # And it comes back from its work directory.
  assert loading.load(workdir).decoder.predicted == slots
