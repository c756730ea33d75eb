"""Losses of clips under a model of latents, on a small cache."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.models import latent_lm
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from tests.data import made_caches
from tests.decoders import small
import jax

L = 2
CLIPS = {'train': 3, 'validation': 4}
HEADS = {
    'mixture': latent_heads.Mixture(components=2),
    'diffusion': latent_heads.Diffusion(
        network_lib.AdalnMlp(
            8, 1, time_embedding.TimeEmbedding(frequencies=4, scale=10.0)
        ),
        grid=times_lib.Grid(2),
    ),
}


def _clip(split, i):
  rng = np.random.default_rng([len(split), i])
  latents = rng.normal(3, 5, size=(3 + 2 * i, L)).astype(np.float32)
  return made_caches.encoding.Example(
      latents=latents,
      samples=320 * len(latents),
      factors={'id': f'{split}{i}', 'language': 'ab'[i % 2]},
  )


@pytest.fixture(scope='module', name='cache')
def _cache(tmp_path_factory):
  identity = made_caches.identity((), CLIPS, spec=made_caches.spec(dimension=L))
  return made_caches.write(tmp_path_factory.mktemp('c') / 'c', identity, _clip)


@pytest.fixture(scope='module', name='models', params=HEADS)
def _models(request, cache):
  decoder = decoders.LatentDecoder(
      L,
      backbone=small.stack(),
      head=HEADS[request.param],
      moments=token_cache.latent_moments(cache),
      history_noise=0.5,
  )
  objective = objectives.NextLatent(decoder=decoder, frames=5, rate=50.0)
  batch = objective.example_batch(1)
  keys = noise_lib.row_keys(jax.random.key(0), np.arange(1))
  params = small.parameters(
      decoder,
      *(batch['latents'], batch['num_frames'], batch['ends'], keys),
      method='losses',
  )
  return objective, {'lm': {'params': params}}


def _scores(models, cache, steps=None, **clips):
  objective, variables = models
  clips = evaluation.TokenClips(cache=cache, **clips)
  settings = evaluation.LatentLosses(clips=clips, likelihood_steps=steps)
  return list(settings.build(objective).run(variables))


def test_every_clip_has_its_losses_wherever_it_stands(models, cache):
  scores = _scores(models, cache)
  assert _scores(models, cache) == scores
  names = {s.name for s in scores}
  head = models[0].decoder.head
  exact = {'nats_per_frame'} if 'nll' in head.loss_weights else set()
  assert names == {*head.loss_weights, 'stop', *exact}
  whole = {(s.name, s.item): s for s in scores}
  assert len(whole) == len(scores) == 4 * len(names)
  for score in _scores(models, cache, languages=('b',)):
    expected = whole[score.name, score.item]
    assert score.sum == pytest.approx(expected.sum, rel=1e-4)
    assert score.weight == expected.weight
  assert sorted({s.weight for s in scores}) == [3, 5, 7, 9]


def test_nats_are_those_of_the_model_for_people(models, cache):
  objective, variables = models
  steps = 4 if objective.decoder.head.takes_steps else None
  scores = _scores(models, cache, steps)
  found = {s.item: s.sum for s in scores if s.name == 'nats_per_frame'}
  lm = latent_lm.LatentLM(objective.decoder, variables['lm']['params'], 50.0)
  for i in range(4):
    latents = _clip('validation', i).latents[None]
    nats = -lm.log_prob(latents, steps=steps).sum()
    assert found[f'validation{i}'] == pytest.approx(nats, rel=1e-3)
  # More steps, other nats: they are taken.
  if steps:
    more = evaluation_base.summarize(_scores(models, cache, 8))
    fewer = evaluation_base.summarize(scores)
    assert more['nats_per_frame'] != fewer['nats_per_frame']


def test_a_clip_that_is_cut_does_not_end(models, cache):
  def stop(**clips):
    scores = _scores(models, cache, **clips)
    return {s.item: s.sum for s in scores if s.name == 'stop'}

  cut, whole = stop(max_frames=5), stop()
  assert cut['validation0'] == pytest.approx(whole['validation0'], rel=1e-5)
  objective, variables = models
  decoder, clip = objective.decoder, _clip('validation', 2)
  x = decoder.moments.normalised(clip.latents[:5])[None]
  keys = noise_lib.row_keys(jax.random.key(0), np.arange(1))

  def by_hand(ends):
    inputs = x, np.array([5]), {}
    params = variables['lm']['params']
    losses = latent_lm.losses(decoder, params, inputs, np.array([ends]), keys)
    return float(losses['stop'].sum())

  assert cut['validation2'] == pytest.approx(by_hand(False), rel=1e-4)
  assert by_hand(True) != pytest.approx(by_hand(False), rel=1e-2)


def test_what_does_not_fit_is_refused(models, cache):
  objective, _ = models
  if not objective.decoder.head.takes_steps:
    with pytest.raises(config.ConfigError, match='likelihood_steps'):
      evaluation.LatentLosses(likelihood_steps=4).build(objective)
  other = objectives.NextLatent(
      decoder=objective.decoder.clone(dimension=3, moments=None),
      frames=5,
      rate=50.0,
  )
  clips = evaluation.TokenClips(cache=cache)
  with pytest.raises(config.ConfigError, match='3'):
    evaluation.LatentLosses(clips=clips).build(other)
  with pytest.raises(config.ConfigError, match='Denoising'):
    evaluation.LatentLosses(clips=clips).build(
        objectives.Denoising(decoder=decoders.Flow(L))
    )
  source = data.TokenCrops(cache=cache, frames=5)
  settings = evaluation.LatentLosses().with_data(source)
  assert settings.clips.cache == cache
