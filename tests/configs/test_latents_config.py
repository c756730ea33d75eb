"""Heads over a VAE's latents, in their smallest sizes."""

import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import pipeline
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import latent_heads
from audiolm_jax.models import latent_lm
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.training import config_files
from configs.codec import quickstart_vae
from configs.lm import flow
from configs.lm import latents
from tests.configs import latent_tokens

HEADS = {
    'mixture': latent_heads.Mixture,
    'flow': latent_heads.Diffusion,
    'diffusion': latent_heads.Diffusion,
    'one_step': latent_heads.FlowMap,
}


def test_all_variants_are_here():
  assert set(HEADS) == set(latents.VARIANTS)


@pytest.mark.parametrize('size', config_files.SIZES)
@pytest.mark.parametrize('name', HEADS)
def test_they_are_of_flows_codec_and_data(name, size):
  values = latents.get_config(f'{name},{size}')
  settings = resolution.resolve(config.build(train.Config, values))
  decoder = settings.objective.decoder
  assert isinstance(decoder.head, HEADS[name])
  codec = quickstart_vae.get_config(size).objective.tokenizer
  decoder.check_spec(codec.spec, 'the codec')
  decoder.check_sampler(latent_heads.LatentSampler(), True)
  assert settings.data.cache == flow.get_config(size).data.cache
  assert settings.data.conditions['text'] == decoder.conditions['text'].source
  # A config that was written to a work directory is the same one.
  assert config.build(train.Config, config.to_config(settings)) == settings


@pytest.fixture(scope='module', name='tokens')
def _tokens(cache, tmp_path_factory):
  directory = tmp_path_factory.mktemp('latents') / 'tokens'
  return latent_tokens.make(directory), directory


def _shrunk(settings, evaluator, directory):
  return config.replace(
      settings,
      {
          'data.cache': str(directory),
          'data.frames': 8,
          f'evaluators.{evaluator}.clips.max_frames': 16,
          'batch_size': 4,
          'steps': 4,
          'eval_every': 4,
          'checkpoint.every': 2,
          'log_every': 2,
      },
  )


@pytest.mark.parametrize(
    'name',
    [
        'one_step',
        pytest.param('mixture', marks=pytest.mark.slow),
        pytest.param('flow', marks=pytest.mark.slow),
        pytest.param('diffusion', marks=pytest.mark.slow),
    ],
)
def test_a_smoke_run_goes_from_latents_to_audio(name, tokens, tmp_path):
  tokenizer, directory = tokens
  settings = latents.get_config(f'{name},smoke')
  results = train.train(_shrunk(settings, 'latents', directory), tmp_path)
  assert np.isfinite(results['loss'])
  assert np.isfinite(results['eval/latents/stop'])
  lm = audiolm_jax.load(tmp_path)
  assert isinstance(lm, latent_lm.LatentLM)
  clips = token_cache.TokenCache(directory, 'validation')
  assert lm.decoder.moments == clips.header.moments
  lm = lm.with_tokenizer(tokenizer)
  prompt = clips[0].latents[None, :4]
  found = lm.generate(prompt, 10, conditions={'text': ['oui']}, guidance=1.5)
  np.testing.assert_array_equal(found.latents[:, :4], prompt)
  samples = found.num_frames * lm.tokenizer.spec.hop
  audio, lengths = lm.tokenizer.decode(
      tokenizers_base.Tokens(num_samples=samples, latents=found.latents)
  )
  assert np.isfinite(audio).all() and lengths[0] == samples[0]


class Killed(Exception):
  pass


@pytest.mark.slow
@pytest.mark.parametrize('config_file', [latents, flow])
def test_a_run_killed_and_started_again_equals_one_that_was_not(
    config_file, tokens, tmp_path, monkeypatch
):
  if config_file is flow:
    settings = _shrunk(flow.get_config('smoke'), 'flow', tokens[1])
  else:
    settings = _shrunk(
        latents.get_config('one_step,smoke'), 'latents', tokens[1]
    )
  whole = train.train(settings, tmp_path / 'whole')
  calls, opened = [], pipeline.CropSource.next

  def dying(self, state):
    calls.append(1)
    if len(calls) == 4:
      raise Killed
    return opened(self, state)

  with monkeypatch.context() as patch:
    patch.setattr(pipeline.CropSource, 'next', dying)
    with pytest.raises(Killed):
      train.train(settings, tmp_path / 'parts')
  assert train.train(settings, tmp_path / 'parts')['loss'] == whole['loss']
  one, other = (
      assembly_lib.restore(tmp_path / name)[1] for name in ('whole', 'parts')
  )
  jax.tree.map(np.testing.assert_array_equal, one, other)
