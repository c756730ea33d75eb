"""The flow over a VAE's latents: from a codec to audio, in its smallest size."""

import zlib

import flax.linen as nn
import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import token_cache
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.training import config_files
from configs.codec import quickstart_vae
from configs.lm import flow
from configs.lm import flow_few
from tests.configs import latent_tokens

# Of parameters.
_MILLIONS = {'smoke': 0.306, 'cpu': 7.7, 'gpu': 179.0}


def test_a_size_alone_is_of_the_first_variant():
  for size in config_files.SIZES:
    assert flow.get_config(size) == flow.get_config(f'text,{size}')
  with pytest.raises(config.ConfigError, match='stable_audio'):
    flow.get_config('best,cpu')


@pytest.mark.parametrize('name', flow.VARIANTS)
@pytest.mark.parametrize('size', config_files.SIZES)
def test_every_size_is_of_the_codec_that_its_docstring_names(name, size):
  values = flow.get_config(f'{name},{size}')
  settings = resolution.resolve(config.build(train.Config, values))
  decoder = settings.objective.decoder
  codec = quickstart_vae.get_config(size).objective.tokenizer
  decoder.check_spec(codec.spec, 'the codec')
  assert settings.data.conditions == {
      name: module.source for name, module in decoder.conditions.items()
  }
  assert settings.data.conditions['text'] == decoder.conditions['text'].source
  # A config that was written to a work directory is the same one.
  assert config.build(train.Config, config.to_config(settings)) == settings
  shapes = nn.meta.unbox(
      jax.eval_shape(settings.objective.init, jax.random.key(0))
  )
  leaves = jax.tree.leaves(shapes['lm']['params'])
  millions = sum(leaf.size for leaf in leaves) / 1e6
  # In the smallest, waves of numbers are a tenth of all.
  rel = 0.15 if size == 'smoke' and name == 'stable_audio' else 0.02
  assert millions == pytest.approx(_MILLIONS[size], rel=rel)


@pytest.fixture(scope='module', name='tokens')
def _tokens(cache, tmp_path_factory):
  directory = tmp_path_factory.mktemp('flow') / 'tokens'
  tokenizer = latent_tokens.make(directory)
  return tokenizer, directory


def test_latents_of_a_vae_are_cached_with_their_moments(tokens):
  tokenizer, directory = tokens
  clips = token_cache.TokenCache(directory, 'train')
  assert len(clips) == 6 and not clips.vocabularies
  frames = np.concatenate([clips[i].latents for i in range(len(clips))])
  assert frames.shape[1] == tokenizer.spec.dimension
  moments = clips.header.moments
  np.testing.assert_allclose(moments.mean, frames.mean(0), atol=1e-5)
  np.testing.assert_allclose(moments.std, frames.std(0), rtol=1e-3)


def _short(settings, directory, **changes):
  return config.replace(
      settings,
      {
          'data.cache': str(directory),
          'data.frames': 8,
          'evaluators.flow.clips.max_frames': 16,
          'batch_size': 4,
          'steps': 4,
          'eval_every': 4,
          'checkpoint.every': 4,
          'log_every': 2,
          **changes,
      },
  )


def test_a_smoke_run_goes_from_latents_to_audio(tokens, tmp_path):
  tokenizer, directory = tokens
  settings = _short(flow.get_config('smoke'), directory)
  results = train.train(settings, tmp_path)
  assert np.isfinite(results['loss'])
  error = results['eval/flow/denoising_error']
  lm = audiolm_jax.load(tmp_path)
  assert isinstance(lm, flow_lm.FlowLM)
  clips = token_cache.TokenCache(directory, 'validation')
  assert lm.decoder.moments == clips.header.moments
  assert lm.frame_rate == tokenizer.spec.frame_rate
  stored = loading.stored(tmp_path).manifest
  assert stored.tokenizer.fingerprint == tokenizer.fingerprint()
  _check_averaged(tmp_path, lm)
  _check_error(error, lm, clips)
  _check_audio(lm.with_tokenizer(tokenizer), clips[0].latents)


def test_seconds_are_learned_and_told(tokens, tmp_path):
  tokenizer, directory = tokens
  settings = config.replace(
      flow.get_config('stable_audio,smoke'),
      {
          'data.cache': str(directory),
          'data.frames': 8,
          'evaluators': {},
          'batch_size': 4,
          'steps': 2,
          'checkpoint.every': 2,
          'log_every': 1,
      },
  )
  assert np.isfinite(train.train(settings, tmp_path)['loss'])
  lm = audiolm_jax.load(tmp_path)
  found = lm.generate(
      *(8, [8]),
      conditions={
          'text': ['oui'],
          'seconds_start': [0.0],
          'seconds_total': [1.5],
      },
      guidance=guidance_lib.Plain(6.0),
      grid=times_lib.Grid(2),
      solver=solvers.Dpm2m(),
  )
  assert found.shape == (1, 8, tokenizer.spec.dimension)
  assert np.isfinite(found).all()


def _check_averaged(workdir, lm):
  """What is exported is what the average has become, not the last step."""
  assembly, state = assembly_lib.restore(workdir)
  for ema in (True, False):
    params = assembly.variables(state, ema=ema)['lm']['params']
    same = jax.tree.map(np.array_equal, lm.params, params)
    assert all(jax.tree.leaves(same)) == ema


def _check_error(error, lm, clips):
  """The evaluator's number, from the loaded model, clip by clip."""
  source = lm.decoder.conditions['text'].source
  total = frames = 0
  for i in range(4):
    known = clips[i].factors
    latents = lm.decoder.moments.normalised(clips[i].latents[None, :16])
    # As the evaluator has them, long texts are cut.
    text = {'text': source.prepare([known['text']], strict=False)}
    row = np.array([zlib.crc32(known['id'].encode())], np.uint32)
    inputs = latents, np.array([latents.shape[1]]), text
    found = flow_lm.errors(lm.decoder, lm.params, inputs, row, 3)
    total += np.asarray(found).mean()
    frames += latents.shape[1]
  assert error == pytest.approx(total / frames, rel=1e-3)


def _check_audio(lm, clip):
  """A gap of a clip is filled in, and sounds as long as the clip."""
  count = min(len(clip), 20)
  given, mask = clip[None, :count], np.ones((1, count), bool)
  mask[0, 5:11] = False
  found = lm.generate(
      count,
      [count],
      given=given,
      given_mask=mask,
      conditions={'text': ['oui']},
      guidance=guidance_lib.Plain(2.0),
      grid=times_lib.Grid(4),
  )
  np.testing.assert_array_equal(found[mask], given[mask])
  assert (found[~mask] != given[~mask]).all()
  samples = np.array([count * lm.tokenizer.spec.hop])
  tokens = tokenizers_base.Tokens(num_samples=samples, latents=found)
  audio, lengths = lm.tokenizer.decode(tokens)
  assert np.isfinite(audio).all() and lengths[0] == samples[0]
  guided, plain = (
      lm.generation_flops(2.0, guidance=guidance)
      for guidance in (guidance_lib.Plain(), None)
  )
  assert plain < guided < 2.1 * plain


# -- its map -------------------------------------------------------------------


@pytest.mark.parametrize('size', config_files.SIZES)
def test_a_map_of_every_size_is_of_its_flow_and_a_second_time(size):
  values = flow_few.get_config(size)
  settings = resolution.resolve(config.build(train.Config, values))
  objective = settings.objective
  base = flow.get_config(size)
  assert objective.teacher == config.build(train.Config, base).objective.decoder
  assert config.build(train.Config, config.to_config(settings)) == settings
  assert objective.guidance is None
  guided = flow_few.get_config(f'guided,{size}').objective
  assert guided.guidance == guidance_lib.Plain(2.0)
  shapes = jax.eval_shape(objective.init, jax.random.key(0))
  counts = {
      name: sum(leaf.size for leaf in jax.tree.leaves(nn.meta.unbox(model)))
      for name, model in shapes.items()
  }
  assert counts['teacher'] / 1e6 == pytest.approx(_MILLIONS[size], rel=0.02)
  assert 1 < counts['lm'] / counts['teacher'] < 1.03


def test_a_smoke_run_distils_a_run_of_the_flow(tokens, tmp_path):
  _, directory = tokens
  changes = {'steps': 2, 'eval_every': 2, 'checkpoint.every': 2}
  base = str(tmp_path / 'flow')
  train.train(_short(flow.get_config('smoke'), directory, **changes), base)
  changes |= {f'models.{name}.init_from': base for name in ('lm', 'teacher')}
  few = flow_few.get_config('guided,smoke')
  results = train.train(_short(few, directory, **changes), tmp_path / 'few')
  assert np.isfinite(results['loss'])
  # Of a student, the velocity's: hardly another than its teacher's yet.
  assert 0 < results['eval/flow/denoising_error'] < 4
  lm = audiolm_jax.load(tmp_path / 'few')
  found = lm.generate(
      6, [6, 4], grid=times_lib.Grid(1), conditions={'text': ['oui', None]}
  )
  assert np.isfinite(found).all() and (found[0] != 0).all()
