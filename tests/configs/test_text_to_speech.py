"""Text, then speech: the config builds, and its smallest size trains."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import token_cache
from audiolm_jax.training import config_files
from configs.lm import text_to_speech
from tests.data import made_caches


@pytest.mark.parametrize('size', config_files.SIZES)
def test_it_builds(size):
  settings = config.build(train.Config, text_to_speech.get_config(size))
  settings = resolution.resolve(settings)
  objective = settings.objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(settings.models)
  assert objective.lengths == {
      'text': settings.data.text_bytes,
      'speech': settings.data.frames,
  }
  clips = settings.evaluators['segments'].clips
  assert (clips.split, clips.frames) == ('validation', settings.data.frames)
  assert clips.cache == settings.data.cache
  assert config.build(train.Config, config.to_config(settings)) == settings


@pytest.mark.slow
def test_a_smoke_run_trains_and_is_scored(tmp_path):
  directory = tmp_path / 'tokens'
  clips = {'train': 6, 'validation': 3}
  identity = made_caches.identity((1024,) * 4, clips)
  writer = token_cache.Writer(directory, identity)
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    examples = [
        made_caches.example(
            rng.integers(0, 1024, (rng.integers(5, 20), 4)).astype(np.int32),
            factors={'id': f'{split}{i}', 'text': f'clip {i}'},
        )
        for i in indices
    ]
    writer.write(split, part, examples)
  assert writer.finish()
  settings = config.replace(
      text_to_speech.get_config('smoke'),
      {
          'data.cache': str(directory),
          'batch_size': 2,
          'steps': 2,
          'eval_every': 2,
      },
  )
  results = train.train(settings, tmp_path / 'run')
  # Nothing has been learnt of uniform codes, nor of bytes.
  assert results['eval/segments/speech/bits_per_frame'] == pytest.approx(
      40, abs=2
  )
  assert results['eval/segments/text/bits_per_frame'] == pytest.approx(8, abs=1)
