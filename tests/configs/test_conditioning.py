"""The quickstart's models with a condition: built, trained, scored."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.models import loading
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.config import diff
from audiolm_jax.data import asterisk_prompts
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.training import config_files
from configs.lm import conditioning
from configs.lm import quickstart
from tests.configs import short_runs
from tests.data import made_caches

NAMES = conditioning.VARIANTS


@pytest.mark.parametrize('size', config_files.SIZES)
@pytest.mark.parametrize('name', NAMES)
def test_only_the_condition_differs(name, size):
  factor, how = NAMES[name]
  values = conditioning.get_config(f'{name},{size}')
  base = quickstart.get_config(size)
  for line in diff.lines(base, values):
    assert line.startswith(
        (
            f'config.objective.decoder.conditions.{factor}',
            *(
                f'config.objective.decoder.backbone.{k}'
                for k in conditioning.NEEDS[how]
            ),
        )
    ), line
  settings = resolution.resolve(config.build(train.Config, values))
  condition = settings.objective.decoder.conditions[factor]
  assert condition.how == how and 0 < condition.dropout < 1
  if factor == 'text':
    (mixer,) = condition.encoder.mixers
    assert mixer.mask_kind == 'bidirectional'
  assert condition.source == settings.data.conditions[factor]
  # A config that was written to a work directory is the same one.
  assert config.build(train.Config, config.to_config(settings)) == settings
  shapes = nn.meta.unbox(
      jax.eval_shape(settings.objective.init, jax.random.key(0))
  )
  assert f'conditions_{factor}' in shapes['lm']['params']


@pytest.fixture(scope='module', name='tokens')
def _tokens(tmp_path_factory):
  """A cache of made-up codes in the quickstart's form, and what they say."""
  directory = tmp_path_factory.mktemp('conditioning') / 'tokens'
  clips = {'train': 6, 'validation': 3, 'test': 3}
  identity = made_caches.identity((1024,) * 4, clips)
  writer = token_cache.Writer(directory, identity)
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    examples = [
        made_caches.example(
            rng.integers(0, 1024, (rng.integers(5, 20), 4)).astype(np.int32),
            factors={
                'id': f'{split}{i}',
                # Some are cut, and one clip has no text.
                'text': 'così ' * i,
                'language': ('en', 'it', 'xx')[i % 3],
                'speaker': asterisk_prompts.SPEAKERS[i % 2],
            },
        )
        for i in indices
    ]
    writer.write(split, part, examples)
  assert writer.finish()
  return directory


@pytest.mark.parametrize('name', ['text_cross'])
def test_a_smoke_run_trains_and_is_scored(tokens, tmp_path, name):
  _train(name, tokens, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted({*NAMES} - {'text_cross'}))
def test_every_smoke_run_trains(tokens, tmp_path, name):
  _train(name, tokens, tmp_path)


def _train(name, tokens, workdir):
  settings = conditioning.get_config(f'{name},smoke')
  settings = short_runs.shrunk(settings, tokens)
  results = train.train(settings, workdir)
  assert results['eval/lm/bits_per_frame'] == pytest.approx(40, abs=2)
  # It comes back from its work directory, and is scored with its condition.
  model = loading.load(workdir)
  cache = token_cache.TokenCache(tokens, 'validation')
  factor, _ = NAMES[name]
  wanted = settings.objective.conditions
  condition_sampler = clip_conditions.ConditionSampler(wanted, cache)
  bits, frames = [], []
  for i in range(len(cache)):
    if factor == 'prompt':
      sampled = factors.unflatten(condition_sampler([i]), [factor])[factor]
      value = sampled['values'][0, : sampled['num_frames'][0]]
    else:
      # Texts may be empty, and one language is in no table.
      value = cache[i].factors[factor] or None
      value = None if value == 'xx' else value
    codes = cache[i].codes[None, :8]
    scored = model.bits_per_frame(codes, conditions={factor: [value]})
    bits.append(scored[0])
    frames.append(codes.shape[1])
  expected = np.average(bits, weights=frames)
  assert results['eval/lm/bits_per_frame'] == pytest.approx(expected, rel=1e-5)
  assert (model.bits_per_frame(codes) != scored).all()
