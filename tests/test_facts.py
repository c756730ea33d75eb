"""A fact stands once in a config, reaches all, and can't be given twice."""

import json
import shutil

import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.data import token_cache
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import config_files
from configs.codec import encodec_24khz
from configs.codec import quickstart as codec_config
from configs.lm import quickstart
from configs.lm import text_to_speech
from configs.lm import wavenet
from tests.configs import short_runs
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


def _lm(tokens, **changes):
  return config.replace(
      quickstart.get_config('smoke'), {'data.cache': tokens, **changes}
  )


def _resolved(settings, *assignments, read=False):
  """As the launcher builds it from a command line."""
  return resolution.resolve(
      config_files.override(settings, assignments), read=read
  )


def _refused(settings, workdir, *parts):
  with pytest.raises(config.ConfigError) as error:
    train.train(settings, workdir)
  for part in parts:
    assert part in str(error.value)
  # The corrected command is not of another run.
  assert not (workdir / 'config.json').exists()


def test_rows_of_frames_are_the_datas(tmp_path):
  base = quickstart.get_config('smoke')
  # From eight codebooks the model takes its first four.
  for hop, rate in ((320, 50.0), (640, 25.0)):
    tokens = _cache(tmp_path / f'{hop}', hop, slots=8)
    settings = _resolved(
        base,
        'config.data.frames=32',
        f'config.data.cache={tokens}',
        read=True,
    )
    assert settings.objective.lengths == {'frames': 32}
    assert settings.objective.rate == rate
    assert settings.data.codebooks == 4
    clips = settings.evaluators['lm'].clips
    # What is scored does not move with the rows of training.
    assert (clips.cache, clips.max_frames) == (tokens, 64)
    assert settings.objective.example_batch(2)['codes'].shape == (2, 32, 4)
    # It stands.
    assert resolution.resolve(settings, read=True) == settings
    assert resolution.resolve(settings) == settings


def test_what_is_known_without_the_data_needs_no_file():
  settings = _lm('{stage:tokens}/tokens')
  known = resolution.resolve(settings)
  assert known.objective.lengths == {'frames': 64}
  assert (known.data.codebooks, known.objective.rate) == (4, None)
  assert assembly_lib.Assembly(settings).config == known
  with pytest.raises(encoding.TokensError, match='stage:tokens'):
    resolution.resolve(settings, read=True)


def test_rows_of_segments_are_the_datas(tmp_path):
  base = text_to_speech.get_config('smoke')
  tokens = _cache(tmp_path / 'tokens', 640, slots=8)
  settings = _resolved(
      base,
      'config.data.frames=7',
      'config.data.text_bytes=5',
      f'config.data.cache={tokens}',
      read=True,
  )
  assert settings.objective.lengths == {'text': 5, 'speech': 7}
  assert (settings.objective.rate, settings.data.codebooks) == (25.0, 4)
  clips = settings.evaluators['segments'].clips
  assert (clips.cache, clips.frames, clips.text_bytes) == (tokens, 48, 24)


def test_audio_comes_as_the_codec_is_of():
  base = codec_config.get_config('smoke')
  settings = _resolved(base, 'config.data.crop_seconds=0.5')
  assert (settings.data.sample_rate, settings.data.channels) == (16000, 1)
  assert settings.objective.samples == 8000
  settings = _resolved(base, 'config.objective.tokenizer.sample_rate=8000')
  assert settings.data.sample_rate == settings.objective.samples == 8000
  both = [
      f'config.objective.tokenizer.{k}coder.channels=2' for k in ('en', 'de')
  ]
  settings = _resolved(encodec_24khz.get_config('smoke'), *both)
  assert (settings.data.sample_rate, settings.data.channels) == (24000, 2)
  # Given the same, too.
  settings = _resolved(base, 'config.data.sample_rate=16000')
  assert settings == resolution.resolve(base)


@pytest.mark.parametrize(
    'teacher, rate',
    [
        (distillation_lib.Features(frame_rate=25.0), 25.0),
        # It makes its features itself.
        (distillation_lib.LogMel(), None),
    ],
)
def test_features_come_at_the_teachers_rate(teacher, rate):
  settings = config.replace(
      codec_config.get_config('smoke'),
      {'objective.distillation': distillation_lib.Distillation(teacher)},
  )
  assert resolution.resolve(settings).data.feature_rate == rate


def test_rows_of_samples_are_the_datas():
  base = wavenet.get_config('mu_law,smoke')
  settings = _resolved(
      base, 'config.data.sample_rate=4000', 'config.data.crop_seconds=0.1'
  )
  assert settings.objective.rate == 4000.0
  assert settings.objective.lengths == {'samples': 400}
  assert settings.data.channels == 1
  # Or the other way.
  rate = {'data.sample_rate': None, 'objective.rate': 4000.0}
  settings = resolution.resolve(config.replace(base, rate))
  assert settings.data.sample_rate == 4000
  local = {'local': 3, 'local_hop': 80}
  settings = config.replace(
      base, {f'objective.decoder.stack.{k}': v for k, v in local.items()}
  )
  assert resolution.resolve(settings).data.feature_rate == 100.0


def test_a_language_model_is_of_its_caches_tokenizer(tmp_path):
  run, good = tmp_path / 'run', _cache(tmp_path / 'good', slots=8)
  slow = _cache(tmp_path / 'slow', hop=640)
  rate = {'objective.rate': 50.0}
  _refused(_lm(slow, **rate), run, 'config.objective.rate = 50', '25 a second')
  for name, options in (
      ('vocabulary', {'vocabulary': 2000}),
      ('slots', {'slots': 2}),
  ):
    bad = _cache(tmp_path / name, **options)
    keys = 'config.objective.decoder.vocabularies', 'config.data.cache', bad
    _refused(_lm(bad), run, *keys)
  latents = made_caches.identity(
      (), {'train': 0, 'validation': 0}, spec=made_caches.spec(dimension=4)
  )
  bad = str(tmp_path / 'latents')
  assert token_cache.Writer(bad, latents).finish()
  _refused(_lm(bad), run, keys[0], bad, 'has continuous tokens')
  other = _cache(tmp_path / 'other', tokenizer='other')
  _refused(
      _lm(good, **{'evaluators.lm.clips.cache': other}),
      run,
      'config.evaluators.lm.clips.cache',
      "'other'",
      "'same'",
  )
  _refused(
      _lm(good, **{'objective.lengths.frames': 32}),
      run,
      'config.objective.lengths.frames = 32',
      'config.data have 64 frames',
  )
  _refused(
      _lm(good, **{'data.codebooks': 3}),
      run,
      'config.data.codebooks = 3',
      'config.objective.decoder.vocabularies, number of = 4',
  )
  # The same rate, but for rounding.
  settings = resolution.resolve(_lm(good, **{'objective.rate': 50.01}), True)
  assert settings.objective.rate == 50.01


def test_segments_are_of_their_caches_tokenizer(tmp_path):
  base = text_to_speech.get_config('smoke')
  slow = _cache(tmp_path / 'slow', hop=640)
  changes = {'data.cache': slow, 'objective.rate': 50.0}
  settings = config.replace(base, changes)
  _refused(settings, tmp_path / 'run', 'config.objective.rate = 50', '25')
  other = _cache(tmp_path / 'v', 640, vocabulary=9)
  settings = config.replace(base, {'data.cache': other})
  _refused(settings, tmp_path / 'run', 'vocabularies', '(9, 9')
  settings = config.replace(
      base, {'data.cache': slow, 'objective.lengths.text': 5}
  )
  _refused(settings, tmp_path / 'run', 'lengths.text = 5', '24 text')


def test_a_codec_hears_the_rate_that_it_is_of(tmp_path):
  base = codec_config.get_config('smoke')
  for field, value, key in (
      ('sample_rate', 8000, 'tokenizer.sample_rate = 16000'),
      ('channels', 2, 'tokenizer, channels of = 1'),
  ):
    settings = config.replace(base, {f'data.{field}': value})
    keys = f'config.data.{field} = {value}', f'config.objective.{key}'
    _refused(settings, tmp_path / 'run', *keys)
  settings = config.replace(base, {'objective.samples': 8000})
  keys = 'config.objective.samples = 8000', '16000 samples'
  _refused(settings, tmp_path / 'run', *keys)
  settings = config.replace(
      base,
      {
          'objective.distillation': distillation_lib.Distillation(
              teacher=distillation_lib.Features(frame_rate=25.0)
          ),
          'models.distillation': train.ModelTraining(),
          'data.features': str(tmp_path),
          'data.feature_rate': 50.0,
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
      data=data.AudioCrops(sample_rate=16000),
      models={'lm': train.ModelTraining()},
      evaluators={'w': evaluation.Bits(clips=evaluation.AudioClips())},
  )
  _refused(
      settings,
      tmp_path / 'run',
      'config.data.sample_rate = 16000',
      'config.objective.rate = 8000',
  )


def test_what_nothing_says_is_asked_for(tmp_path):
  decoder = decoders.Decoder(vocabularies=(4,))
  settings = train.Config(
      objective=objectives.NLL(decoder=decoder),
      data=data.Synthetic(),
      models={'lm': train.ModelTraining()},
  )
  _refused(settings, tmp_path / 'run', 'config.objective.rate = None')
  with pytest.raises(config.ConfigError, match=r"lengths has no \['frames'\]"):
    settings.objective.example_batch(1)
  codec = config.replace(
      codec_config.get_config('smoke'), {'data': data.Synthetic()}
  )
  with pytest.raises(config.ConfigError, match='objective.samples = None'):
    resolution.resolve(codec).objective.example_batch(1)
  # Of a model whose data says nothing of its rate, either.
  settings = config.replace(
      wavenet.get_config('mu_law,smoke'), {'data.sample_rate': None}
  )
  _refused(settings, tmp_path / 'run', 'config.objective.rate = None')
  source = data.AudioCrops(sample_rate=8000, channels=1, features='x')
  with pytest.raises(config.ConfigError, match='feature_rate = None'):
    source.open(batch_size=1, seed=0)


@pytest.fixture(scope='module', name='short')
def _short(tmp_path_factory):
  """A tiny run over a cache of a few clips."""
  tokens = made_caches.write(
      tmp_path_factory.mktemp('facts') / 'tokens',
      made_caches.identity((1024,) * 4, {'train': 3, 'validation': 1}),
      lambda split, i: made_caches.example(
          np.full((9, 4), i, np.int32), {'id': f'{split}{i}'}
      ),
  )
  settings = short_runs.shrunk(quickstart.get_config('smoke'), tokens)
  changes = {
      'objective.decoder.backbone': stack_lib.Stack(width=8, layers=1),
      'steps': 1,
      'eval_every': 1,
      'checkpoint.every': 1,
  }
  return config.replace(settings, changes)


def test_config_json_says_everything_and_the_command_goes_on(short, tmp_path):
  run = tmp_path / 'run'
  train.train(short, run)
  values = json.loads((run / 'config.json').read_text())
  assert values['objective']['lengths'] == {'frames': 8}
  assert values['objective']['rate'] == 50.0
  assert values['data']['codebooks'] == 4
  assert values['evaluators']['lm']['clips']['cache']
  # Of two runs, the whole difference.
  wide = config.replace(short, {'data.frames': 9})
  with pytest.raises(config.ConfigError) as error:
    train.train(wide, run)
  for key in ('data.frames: 8 -> 9', 'objective.lengths.frames: 8 -> 9'):
    assert key in str(error.value)
  # The same command finds its own run, and what it resolved to does, too.
  train.train(short, run)
  train.train(config.build(train.Config, assembly_lib.read(run)), run)
  # A model needs no data.
  shutil.move(short.data.cache, f'{short.data.cache} elsewhere')
  try:
    assert audiolm_jax.load(run).frame_rate == 50.0
    assembly, _ = assembly_lib.restore(run)
    assert assembly.objective.rate == 50.0
  finally:
    shutil.move(f'{short.data.cache} elsewhere', short.data.cache)
