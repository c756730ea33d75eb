"""Values that stand in two places of a config, and must agree."""

import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.data import token_cache
from audiolm_jax.objectives import distillation as distillation_lib
from configs.codec import quickstart as codec_config
from configs.lm import quickstart
from configs.lm import text_to_speech
from tests.data import made_caches


def _cache(directory, hop=320, vocabulary=1024, tokenizer='same', slots=4):
  """A token cache of no clips."""
  vocabularies = (vocabulary,) * slots
  identity = made_caches.identity(
      vocabularies,
      {'train': 0, 'validation': 0},
      spec=made_caches.spec(vocabularies, hop),
      fingerprint=tokenizer,
  )
  assert token_cache.Writer(directory, identity).finish()
  return str(directory)


def _lm(tokens, **objective):
  changes = {'data.cache': tokens}
  changes |= {f'objective.{k}': v for k, v in objective.items()}
  return config.replace(quickstart.get_config('smoke'), changes)


def _refused(settings, workdir, *parts):
  with pytest.raises(config.ConfigError) as error:
    train.train(settings, workdir)
  for part in parts:
    assert part in str(error.value)
  # The corrected command is not of another run.
  assert not (workdir / 'config.json').exists()


def test_a_language_model_is_of_its_caches_tokenizer(tmp_path):
  run, good = tmp_path / 'run', _cache(tmp_path / 'good', slots=8)
  for name, options, keys in (
      ('rate', {'hop': 200}, ('config.objective.rate = 50', '80')),
      (
          'vocabulary',
          {'vocabulary': 2000},
          ('config.objective.decoder.vocabularies', '2000'),
      ),
  ):
    bad = _cache(tmp_path / name, **options)
    _refused(_lm(bad), run, *keys, 'config.data.cache')
  other = _cache(tmp_path / 'other', tokenizer='other')
  settings = config.replace(_lm(good), {'evaluators.lm.clips.cache': other})
  _refused(
      settings, run, 'config.evaluators.lm.clips.cache', "'other'", "'same'"
  )
  settings = config.replace(_lm(good), {'data.frames': 32})
  _refused(settings, run, 'config.data.frames = 32', 'lengths.frames = 64')
  settings = config.replace(_lm(good), {'data.codebooks': 3})
  _refused(settings, run, 'config.data.codebooks = 3', 'number of = 4')
  # These fit: the LM models the first codebooks of eight.
  train.check_facts(_lm(good))
  slow = _cache(tmp_path / 'slow', hop=640)
  train.check_facts(_lm(slow, rate=25.0))


def test_segments_are_of_their_caches_tokenizer(tmp_path):
  settings = text_to_speech.get_config('smoke')
  slots = len(settings.objective.decoder.vocabularies) - 1
  cache = _cache(tmp_path / 'slow', hop=640, slots=slots)
  settings = config.replace(
      settings,
      {'data.cache': cache, 'evaluators.segments.clips.source.cache': cache},
  )
  _refused(settings, tmp_path / 'run', 'config.objective.rate = 50', '25')
  other = _cache(tmp_path / 'v', 640, vocabulary=9, slots=slots)
  settings = config.replace(
      settings, {'objective.rate': 25.0, 'data.cache': other}
  )
  _refused(settings, tmp_path / 'run', 'vocabularies', '(9, 9')


def test_a_codec_hears_the_rate_that_it_is_of(tmp_path):
  base = codec_config.get_config('smoke')
  _refused(
      config.replace(base, {'data.sample_rate': 8000}),
      tmp_path / 'run',
      'config.data.sample_rate = 8000',
      'config.objective.tokenizer.sample_rate = 16000',
  )
  for key, value in {'channels': 2, 'crop_seconds': 0.5}.items():
    settings = config.replace(base, {f'data.{key}': value})
    _refused(settings, tmp_path / 'run', f'config.data.{key}')
  settings = config.replace(
      base,
      {
          'objective.distillation': distillation_lib.Distillation(
              teacher=distillation_lib.Features(frame_rate=25.0)
          ),
          'models.distillation': train.ModelTraining(),
          'data.features': str(tmp_path),
      },
  )
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.feature_rate = 50',
      'config.objective.distillation.teacher.frame_rate = 25',
  )


def test_a_model_of_samples_hears_the_rate_that_it_is_of(tmp_path):
  settings = train.Config(
      objective=objectives.NLL(rate=8000.0, decoder=decoders.WaveNet()),
      data=data.AudioCrops(),
      models={'lm': train.ModelTraining()},
      evaluators={'w': evaluation.Bits(clips=evaluation.AudioClips())},
  )
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.sample_rate = 16000',
      'config.objective.rate = 8000',
  )
