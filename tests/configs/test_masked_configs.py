"""Masked decoders on the quickstart's tokens."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.data import token_cache
from audiolm_jax.models import loading
from audiolm_jax.processes import hiding
from audiolm_jax.training import config_files
from configs.lm import masked
from configs.lm import quickstart
from tests.configs import short_runs
from tests.data import made_caches

HIDES = {
    'any_order': hiding.Subset,
    'soundstorm': hiding.Rate,
    'magnet': hiding.Spans,
}


def test_all_variants_are_here():
  assert set(HIDES) == set(masked.VARIANTS)


@pytest.mark.parametrize('size', config_files.SIZES)
@pytest.mark.parametrize('name', HIDES)
def test_they_are_the_quickstarts_but_for_what_is_hidden(name, size):
  settings = masked.get_config(f'{name},{size}')
  config.build(train.Config, settings)
  decoder = settings.objective.decoder
  base = quickstart.get_config(size).objective.decoder
  assert isinstance(decoder.hiding, HIDES[name])
  assert len(decoder.order) == (1 if name == 'any_order' else 4)
  (mixer,) = decoder.backbone.mixers
  assert mixer.mask_kind == 'bidirectional'
  mixers = {'mixers': base.backbone.mixers}
  assert config.replace(decoder.backbone, mixers) == base.backbone


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
  directory = tmp_path_factory.mktemp('masked') / 'tokens'
  clips = {'train': 6, 'validation': 3, 'test': 3}
  writer = token_cache.Writer(
      directory, made_caches.identity((1024,) * 4, clips)
  )
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    examples = [
        made_caches.example(
            rng.integers(0, 1024, (rng.integers(5, 20), 4)).astype(np.int32),
            factors={'id': f'{split}{i}'},
        )
        for i in indices
    ]
    writer.write(split, part, examples)
  assert writer.finish()
  return directory


@pytest.mark.parametrize(
    'name',
    [
        'magnet',
        pytest.param('any_order', marks=pytest.mark.slow),
        pytest.param('soundstorm', marks=pytest.mark.slow),
    ],
)
def test_a_smoke_run_trains_and_comes_back(name, tokens, tmp_path):
  settings = masked.get_config(f'{name},smoke')
  settings = short_runs.shrunk(settings, tokens)
  results = train.train(settings, tmp_path)
  bits = results['eval/lm/bits_per_frame']
  # Of random codes, from draws of a few clips.
  assert bits == pytest.approx(40, abs=6)
  assert results['eval/lm/bits_per_frame_in_1_steps'] == pytest.approx(
      40, abs=6
  )
  model = loading.load(tmp_path)
  cache = token_cache.TokenCache(tokens, 'validation')
  codes = np.asarray(cache[0].codes[None, :, :4], np.int32)
  found = model.bits_per_frame(codes, draws=64)
  assert found.bits[0] == pytest.approx(40, abs=6)
