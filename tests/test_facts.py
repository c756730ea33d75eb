"""Values that stand in two places of a config, and must agree."""

import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.data import token_cache
from configs.codec import quickstart as codec_config
from configs.lm import quickstart
from configs.lm import text_to_speech


def _cache(directory, hop=320, vocabulary=1024, tokenizer='same', slots=4):
  """A token cache of no clips."""
  spec = {
      'sample_rate': 16000,
      'hop': hop,
      'segment': None,
      'slots': [{'vocabulary': vocabulary}] * slots,
  }
  identity = token_cache.Identity(
      tokenizer, 'tokenizer', spec, 'c', (), {'train': 0, 'validation': 0}
  )
  assert token_cache.Writer(directory, identity).finish()
  return str(directory)


def _lm(tokens, **objective):
  settings = quickstart.get_config('smoke')
  settings.data.cache = settings.evaluators.lm.cache = tokens
  settings.objective.codebooks = None
  settings.objective.update(objective)
  return settings


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
      ('rate', {'hop': 200}, ('config.objective.frame_rate = 50', '80')),
      (
          'vocabulary',
          {'vocabulary': 2000},
          ('config.objective.decoder.vocabularies', '2000'),
      ),
  ):
    bad = _cache(tmp_path / name, **options)
    _refused(_lm(bad), run, *keys, 'config.data.cache')
  other = _cache(tmp_path / 'other', tokenizer='other')
  settings = _lm(good)
  settings.evaluators.lm.cache = other
  _refused(settings, run, 'config.evaluators.lm.cache', "'other'", "'same'")
  _refused(_lm(good, codebooks=other), run, 'config.objective.codebooks')
  settings = _lm(good)
  settings.data.frames = 32
  _refused(settings, run, 'config.data.frames = 32', 'objective.frames = 64')
  settings = _lm(good)
  settings.data.codebooks = 3
  _refused(settings, run, 'config.data.codebooks = 3', 'number of = 4')
  # These fit: the LM models the first codebooks of eight.
  train.check_facts(config.build(train.Config, _lm(good)))
  slow = _cache(tmp_path / 'slow', hop=640)
  train.check_facts(config.build(train.Config, _lm(slow, frame_rate=25.0)))


def test_segments_are_of_their_caches_tokenizer(tmp_path):
  settings = text_to_speech.get_config('smoke')
  slots = len(settings.objective.decoder.vocabularies) - 1
  cache = _cache(tmp_path / 'slow', hop=640, slots=slots)
  settings.data.cache = cache
  for evaluator in settings.evaluators.values():
    evaluator.source.cache = cache
  _refused(settings, tmp_path / 'run', 'config.objective.frame_rate = 50', '25')
  settings.objective.frame_rate = 25.0
  settings.data.cache = _cache(tmp_path / 'v', 640, vocabulary=9, slots=slots)
  _refused(settings, tmp_path / 'run', 'vocabularies', '(9, 9')


def test_a_codec_hears_the_rate_that_it_is_of(tmp_path):
  settings = codec_config.get_config('smoke')
  settings.data.sample_rate = 8000
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.sample_rate = 8000',
      'config.objective.tokenizer.sample_rate = 16000',
  )
  for key, value in {'channels': 2, 'crop_seconds': 0.5}.items():
    settings = codec_config.get_config('smoke')
    settings.data[key] = value
    _refused(settings, tmp_path / 'run', f'config.data.{key}')
  settings = codec_config.get_config('smoke')
  with settings.unlocked():
    settings.objective.distillation = {
        'teacher': {'kind': 'features', 'frame_rate': 25.0}
    }
    settings.models.distillation = {}
  settings.data.features = str(tmp_path)
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.feature_rate = 50',
      'config.objective.distillation.teacher.frame_rate = 25',
  )


def test_a_model_of_samples_hears_the_rate_that_it_is_of(tmp_path):
  objective = config.kind(
      objectives.OBJECTIVES,
      'waveform_lm',
      sample_rate=8000,
      decoder={'kind': 'wavenet'},
  )
  settings = config.defaults(
      train.Config,
      objective=objective,
      data=config.kind(data.SOURCES, 'audio'),
      models={'lm': {}},
      evaluators={'w': config.kind(evaluation.EVALUATORS, 'waveform')},
  )
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.sample_rate = 16000',
      'config.objective.sample_rate = 8000',
  )
