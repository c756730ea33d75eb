"""Errors by noise level on a small cache of latents."""

import zlib

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import conditioners
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.models import flow_lm
from audiolm_jax.processes import validation
from tests.data import made_caches
from tests.decoders import small

D, LEVELS = 2, 4
CLIPS = {'train': 3, 'validation': 4}


def _clip(split, i):
  rng = np.random.default_rng([len(split), i])
  latents = rng.normal(3, 5, size=(3 + 2 * i, D)).astype(np.float32)
  known = {'id': f'{split}{i}', 'language': 'ab'[i % 2]}
  return made_caches.encoding.Example(
      latents=latents, samples=320 * len(latents), factors=known
  )


@pytest.fixture(scope='module', name='cache')
def _cache(tmp_path_factory):
  identity = made_caches.identity((), CLIPS, spec=made_caches.spec(dimension=D))
  return made_caches.write(tmp_path_factory.mktemp('c') / 'c', identity, _clip)


@pytest.fixture(scope='module', name='objective')
def _objective(cache):
  language = conditioners.Class(source=factors.Name(('a', 'b')), how='film')
  decoder = decoders.Flow(
      D,
      backbone=small.stack(
          mixer={'mask_kind': 'bidirectional'}, adaptive='adaln_zero'
      ),
      conditions={'language': language},
      moments=token_cache.latent_moments(cache),
  )
  return objectives.Denoising(decoder=decoder, frames=5, rate=50.0)


@pytest.fixture(scope='module', name='variables')
def _variables(objective):
  latents, num_frames, conditions = objective.decoder.read(
      objective.example_batch(1)
  )
  inputs = latents, np.ones(1, np.float32), num_frames, None, None, None
  params = small.parameters(
      objective.decoder, *inputs, conditions, method='predict'
  )
  return {'lm': {'params': params}}


def _scores(objective, variables, cache, **clips):
  clips = evaluation.TokenClips(cache=cache, **clips)
  settings = evaluation.DenoisingErrors(clips=clips, levels=LEVELS)
  return list(settings.build(objective).run(variables))


def test_every_clip_has_its_errors_at_every_level(objective, variables, cache):
  scores = _scores(objective, variables, cache)
  whole = [s for s in scores if s.along is None]
  assert {s.item for s in whole} == {f'validation{i}' for i in range(4)}
  assert sorted(s.weight for s in whole) == [3, 5, 7, 9]
  curve = evaluation_base.curves(scores)['denoising_error by noise level']
  assert [t for t, _ in curve] == validation.levels(LEVELS).tolist()
  mean = evaluation_base.summarize(scores)['denoising_error']
  assert mean == pytest.approx(np.mean([error for _, error in curve]))
  for score in whole:
    points = [s for s in scores if s.item == score.item and s.along]
    assert np.mean([s.sum for s in points]) == pytest.approx(score.sum)
  # Again the same: no draw is new.
  assert _scores(objective, variables, cache) == scores


def test_a_clip_has_its_noise_beside_any_others(objective, variables, cache):
  alone = _scores(objective, variables, cache, languages=('b',))
  whole = {(s.item, s.along): s for s in _scores(objective, variables, cache)}
  assert len(alone) == 2 * (LEVELS + 1)
  for score in alone:
    expected = whole[score.item, score.along]
    assert score.sum == pytest.approx(expected.sum, rel=1e-4)
    assert score.weight == expected.weight


def test_it_is_of_normalised_latents_and_of_each_clips_conditions(
    objective, variables, cache
):
  """By hand, from the latents of one clip."""
  score, *_ = _scores(objective, variables, cache, limit=1)
  decoder, clip = objective.decoder, _clip('validation', 0)
  x = decoder.moments.normalised(clip.latents)[None]

  def denoise(language):
    conditions = decoder.prepare({'language': [language]}, 1)
    rows = np.array([zlib.crc32(b'validation0')], np.uint32)
    inputs = x, np.array([3]), conditions
    params = variables['lm']['params']
    return float(flow_lm.errors(decoder, params, inputs, rows, LEVELS)[0, 0])

  assert score.along == ('noise level', 0.125)
  assert score.sum == pytest.approx(denoise('a'), rel=1e-4)
  assert abs(denoise('b') / score.sum - 1) > 1e-4


def test_a_worse_model_errs_more(objective, variables, cache):
  worse = jax.tree.map(lambda w: 3 * w, variables)
  means = [
      evaluation_base.summarize(_scores(objective, v, cache))
      for v in (variables, worse)
  ]
  assert means[1]['denoising_error'] > 1.5 * means[0]['denoising_error']


def test_what_does_not_fit_is_refused(objective, cache, tmp_path):
  codes = made_caches.write(
      tmp_path / 'codes',
      made_caches.identity((5,), {'validation': 1}),
      lambda *_: made_caches.example(np.zeros((4, 1), np.int32), {'id': 'x'}),
  )
  settings = evaluation.DenoisingErrors()
  with pytest.raises(config.ConfigError, match='clips.cache = None'):
    settings.build(objective)
  filled = settings.with_data(data.TokenCrops(cache=codes))
  assert filled.clips.cache == codes
  with pytest.raises(config.ConfigError, match='dimension = 2.*codes of'):
    filled.build(objective)
  nll = objectives.NLL(decoder=decoders.Decoder(vocabularies=(5,)))
  with pytest.raises(config.ConfigError, match='is a NLL'):
    filled.build(nll)
  # And no likelihood is asked of it.
  clips = evaluation.TokenClips(cache=cache)
  with pytest.raises(config.ConfigError, match=r'a Flow, has \[\]'):
    evaluation.Bits(clips=clips).build(objective)
  # Codes are wanted, and these are latents.
  bits = evaluation.Bits(clips=clips)
  with pytest.raises(config.ConfigError, match='has continuous tokens'):
    bits.build(nll)
