"""Codebooks over a VAE's latents: near enough, and decoded by the same decoder."""

import dataclasses
import json

import flax
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.data import corpora
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import caching
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import bottlenecks
from tests import tool_module
from tests.tokenizers import tiny

fit_codes = tool_module.load('fit_codes')


@pytest.fixture(name='vae', scope='module')
def _vae():
  made = audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))
  # Its parts are in no table, so they have no config to take it from.
  made.fingerprint = lambda: 'vae'
  return made


@pytest.fixture(name='run')
def _run(tmp_path, monkeypatch, vae):
  """Runs the tool; what it would write is kept."""
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  for i in range(12):
    rng = np.random.default_rng(i)
    audio = rng.uniform(-0.5, 0.5, (2000 + 100 * i, 1)).astype(np.float32)
    files.write(tmp_path / 'clips' / f'c{i}.wav', audio, tiny.RATE)
  corpora.prepare(str(tmp_path / 'clips'))
  caching.fill(
      vae, tmp_path / 'tokens', corpus=str(tmp_path / 'clips'), workdir='vae'
  )
  monkeypatch.setattr(fit_codes.loading, 'load_codec', lambda _: vae)
  kept = {}

  def keep(path, manifest, variables, place):
    del place
    path.mkdir(parents=True, exist_ok=True)
    kept[path.name] = audio_tokenizer.AudioTokenizer(
        manifest.module, flax.core.meta.unbox(variables)
    )

  monkeypatch.setattr(fit_codes.directory, 'write', keep)

  def run(*flags, out='codes', **changes):
    arguments = [
        f'--tokenizer={tmp_path}/vae',
        f'--cache={tmp_path}/tokens',
        f'--out={tmp_path / out}',
        '--vocabulary=16',
        *flags,
    ]
    options = fit_codes._options(arguments)
    for name, value in changes.items():
      setattr(options, name, value)
    found = fit_codes.write(options)
    assert json.loads((tmp_path / out / 'fit.json').read_text()) == found
    return found, kept[out]

  return run


def test_codes_stand_for_the_means_within_the_noise(run, vae, monkeypatch):
  noise = 0.2 * float(np.mean(np.square(_latents(vae))))
  monkeypatch.setattr(fit_codes, '_noise', lambda *_: noise)
  found, codec = run()
  errors = found['errors']
  assert errors == sorted(errors, reverse=True)
  assert errors[-1] <= noise and (len(errors) < 2 or errors[-2] > noise)
  assert found['codebooks'] == len(errors) == len(codec.spec.slots)
  latents = _latents(vae)
  codes = np.asarray(codec.encode(_audio()).codes)
  vectors = codec.codes_to_vectors(codes)
  # The codec's own encoder and map give the means that the VAE gives.
  np.testing.assert_array_equal(
      codec.vectors_to_codes(latents, len(errors)), codes
  )
  assert np.mean(np.square(vectors - latents)) < 3 * noise
  # It sounds as the VAE sounds of these vectors.
  samples = np.array([_audio().shape[1]], np.int32)
  tokens = tokenizers_base.Tokens(codes=codes, num_samples=samples)
  soft = tokenizers_base.Tokens(latents=vectors, num_samples=samples)
  np.testing.assert_allclose(
      codec.decode(tokens)[0], vae.decode(soft)[0], atol=1e-5
  )


def _audio():
  rng = np.random.default_rng(99)
  return rng.uniform(-0.5, 0.5, (1, 1600, 1)).astype(np.float32)


def _latents(vae):
  return np.asarray(vae.encode(_audio()).latents)


def test_the_noise_is_the_variance_that_the_vae_draws(run, vae):
  """By the spread of many draws of the bottleneck."""
  found, _ = run('--clips=12', '--most=99')
  draw = jax.jit(
      lambda latents, rng: vae.tokenizer.bottleneck.quantise(
          _bottleneck(vae), latents, np.ones(latents.shape[:2], bool), rng=rng
      ).tokens
  )
  latents, _ = vae.tokenizer.encode_latents(
      vae.variables['params'], _audio(), np.array([1600])
  )
  draws = np.stack([draw(latents, jax.random.key(i)) for i in range(300)])
  # The other clips are of the same noise, more or less.
  assert draws.var(axis=0).mean() == pytest.approx(found['noise'], rel=0.3)


def _bottleneck(vae):
  return {'params': vae.variables['params']['bottleneck'], 'state': {}}


def test_what_cannot_be_fitted_is_refused(run, vae, monkeypatch):
  monkeypatch.setattr(fit_codes, '_noise', lambda *_: 1e-12)
  with pytest.raises(config.ConfigError, match='2 codebooks of 16 leave'):
    run('--most=2')
  with pytest.raises(config.ConfigError, match='codes'):
    run('--vocabulary=100000')
  with pytest.raises(SystemExit):
    run('--most=0')
  monkeypatch.setattr(vae, 'fingerprint', lambda: 'other')
  with pytest.raises(config.ConfigError, match='another tokenizer'):
    run()
  other = audio_tokenizer.AudioTokenizer(*tiny.codec('state'))
  monkeypatch.setattr(fit_codes.loading, 'load_codec', lambda _: other)
  with pytest.raises(config.ConfigError, match='expected a Vae'):
    run()


def test_maps_with_biases_keep_padding_out():
  rvq = bottlenecks.Rvq(2, 5, dimension=3, use_bias=True, dropout=0.0)
  variables = flax.core.meta.unbox(rvq.init(jax.random.key(0), 4))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), variables['params']
  )
  state = variables['state'].replace(
      codebooks=rng.normal(size=(2, 5, 3)).astype(np.float32)
  )
  variables = {'params': params, 'state': state}
  x = rng.normal(size=(1, 6, 4)).astype(np.float32)
  mask = np.arange(6)[None] < 4
  found = rvq.quantise(variables, x, mask)
  alone = rvq.quantise(variables, x[:, :4], mask[:, :4])
  np.testing.assert_array_equal(found.codes[:, :4], alone.codes)
  np.testing.assert_allclose(found.latents[:, :4], alone.latents, rtol=1e-6)
  assert not np.asarray(found.latents[:, 4:]).any()
  inside = x[:, :4] @ params['in']['kernel'] + params['in']['bias']
  np.testing.assert_allclose(
      np.square(inside - state.codebooks[0][found.codes[:, :4, 0]]).sum(-1),
      np.square(inside[:, :, None] - state.codebooks[0]).sum(-1).min(-1),
      rtol=1e-4,
  )
  whole = rvq.dequantise(variables, found.codes[:, :4])
  np.testing.assert_allclose(whole, found.latents[:, :4], rtol=1e-4, atol=1e-5)
  with pytest.raises(config.ConfigError, match='use_bias = True does nothing'):
    bottlenecks.Rvq(use_bias=True)
  assert dataclasses.replace(rvq, use_bias=False).dimension == 3
