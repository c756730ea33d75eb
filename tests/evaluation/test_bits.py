"""Bits on a small token cache, clip by clip against the model itself."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.tokenizers import encoding
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from tests.data import made_caches

V = 5
CLIPS = {'train': 12, 'validation': 5, 'test': 4}


def _clip(split, index):
  rng = np.random.default_rng([len(split), index])
  codes = rng.integers(0, V, (int(rng.integers(1, 20)), 3))
  # Slot 0 repeats itself: the bigram has something to find.
  codes[:, 0] = codes[0, 0]
  return codes.astype(np.int32)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  directory = tmp_path_factory.mktemp('lm') / 'tokens'
  writer = token_cache.Writer(
      directory,
      made_caches.identity((V,) * 3, CLIPS),
  )
  for split, part, indices in writer.missing():
    writer.write(
        split,
        part,
        [
            made_caches.example(
                _clip(split, i),
                factors={'id': f'{split}{i}', 'language': 'ab'[i % 2]},
            )
            for i in indices
        ],
    )
  assert writer.finish()
  return directory


@pytest.fixture(scope='module')
def objective():
  backbone = stack_lib.Stack(
      width=8,
      layers=1,
      mixers=(attention.Attention(heads=1),),
      mlp=mlps.Dense(hidden=8),
  )
  return objectives.NLL(
      decoder=decoders.Decoder(vocabularies=(V, V), backbone=backbone)
  )


@pytest.fixture(scope='module')
def variables(objective):
  init = jax.jit(
      objective.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  return nn.meta.unbox(init(jax.random.key(0)))


def _build(objective, cache, baselines=False, **clips):
  clips = evaluation.TokenClips(cache=str(cache), **clips)
  return evaluation.Bits(clips=clips, baselines=baselines).build(objective)


def test_every_clip_is_scored_whole_and_once(cache, objective, variables):
  evaluator = _build(objective, cache, split='test', baselines=True)
  whole = list(evaluator.run(variables))
  scores = [s for s in whole if s.along is None]
  assert len({(s.name, s.item) for s in scores}) == len(scores) == 4 * 3 * 3
  bound = objective.bind(variables)
  for i in range(CLIPS['test']):
    codes = _clip('test', i)
    mine = {s.name: s for s in scores if s.item == f'test{i}'}
    (bits,) = bound.bits_per_frame(codes[None, :, :2])
    total = mine['bits_per_frame']
    assert total.weight == len(codes)
    assert total.sum / total.weight == pytest.approx(bits, rel=1e-5)
    for prefix in ('', 'unigram/', 'bigram/'):
      parts = [mine[f'{prefix}bits_per_frame_codebook_{k}'].sum for k in (0, 1)]
      every = mine[f'{prefix}bits_per_frame']
      assert sum(parts) == pytest.approx(every.sum, rel=1e-5)
      assert every.weight == len(codes)
  means = evaluation_base.summarize(scores)
  name = 'bits_per_frame_codebook_0'
  assert means[f'bigram/{name}'] < 0.7 * means[f'unigram/{name}']
  # Evaluating again costs no second fit, and says the same.
  assert list(evaluator.run(variables)) == whole


def test_curves_by_position_are_means_of_the_codes_there(
    cache, objective, variables
):
  evaluator = _build(objective, cache, split='test', baselines=True)
  scores = list(evaluator.run(variables))
  curve = evaluation_base.curves(scores)['bits_per_frame by frame']
  bound, bits = objective.bind(variables), []
  for i in range(CLIPS['test']):
    log_prob = bound.score(_clip('test', i)[None, :, :2])['frames'].log_prob
    bits.append(-np.asarray(log_prob)[0].sum(1) / np.log(2))
  longest = max(map(len, bits))
  starts = [x for x, _ in curve]
  assert starts == [2.0**k for k in range(len(starts))]
  assert starts[-1] <= longest < 2 * starts[-1]
  for x, mean in curve:
    first = int(x) - 1
    there = np.concatenate([b[first : 2 * first + 1] for b in bits])
    assert mean == pytest.approx(there.mean(), rel=1e-5)
  # All of the clips' frames are in one of the means.
  points = [s for s in scores if s.along and s.name == 'bits_per_frame']
  total = evaluation_base.summarize(scores)['bits_per_frame']
  assert sum(s.weight for s in points) == sum(map(len, bits))
  assert sum(s.sum for s in points) / sum(map(len, bits)) == pytest.approx(
      total, rel=1e-5
  )


def test_a_bound_is_of_draws_that_are_each_clips_own(cache):
  decoder = decoders.Masked(
      (V, V),
      stack_lib.Stack(
          width=8,
          layers=1,
          mixers=(attention.Attention(1, mask_kind='bidirectional'),),
          mlp=mlps.Dense(hidden=8),
      ),
  )
  masked = objectives.NLL(decoder=decoder)
  init = jax.jit(
      masked.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  params = jax.tree.map(
      lambda w: w + 0.3 * np.sin(np.arange(w.size)).reshape(w.shape),
      nn.meta.unbox(init(jax.random.key(0))),
  )

  def run(limit=None, **options):
    clips = evaluation.TokenClips(cache=str(cache), split='test', limit=limit)
    bits = evaluation.Bounds(clips=clips, **options).build(masked)
    return list(bits.run(params))

  found = run(draws=64, steps=(1, 3))
  assert found == run(draws=64, steps=(1, 3))
  # The same beside other clips.
  assert [s for s in found if s.item == 'test0'] == [
      s for s in run(limit=1, draws=64, steps=(1, 3)) if s.item == 'test0'
  ]
  # `Bits` takes the first of one draw.
  one = run(draws=1)
  bits = evaluation.Bits(
      clips=evaluation.TokenClips(cache=str(cache), split='test')
  )
  assert list(bits.build(masked).run(params)) == one
  bound = masked.bind(params)
  for i in range(CLIPS['test']):
    codes = _clip('test', i)[None, :, :2]
    mine = {
        s.name: s for s in found if s.item == f'test{i}' and s.along is None
    }
    wanted = bound.bits_per_frame(codes, draws=256, seed=3)
    total = mine['bits_per_frame']
    # Its own draws are a quarter as many.
    assert total.sum / total.weight == pytest.approx(
        wanted.bits[0], abs=12 * float(wanted.error[0])
    )
    one = bound.bits_per_frame(codes, steps=1, draws=1).bits[0]
    in_one = mine['bits_per_frame_in_1_steps']
    assert in_one.sum / in_one.weight == pytest.approx(one, rel=1e-4)
  curves = evaluation_base.curves(found)
  means = evaluation_base.summarize([s for s in found if s.along is None])
  assert curves['bits_per_frame by steps'] == [
      (x, pytest.approx(means[f'bits_per_frame_in_{x:.0f}_steps']))
      for x in (1.0, 3.0)
  ]


def test_bounds_are_of_masked_decoders(cache, objective):
  clips = evaluation.TokenClips(cache=str(cache))
  with pytest.raises(config.ConfigError, match='expected a masked one'):
    evaluation.Bounds(clips=clips).build(objective)
  decoder = decoders.Masked((V, V), stack_lib.Stack(width=8, layers=1))
  masked = objectives.NLL(decoder=decoder)
  with pytest.raises(config.ConfigError, match='nothing without steps'):
    evaluation.Bounds(clips=clips, schedule='cosine').build(masked)


def test_languages_limit_and_max_frames_select(cache, objective, variables):

  def items(**settings):
    scores = _build(objective, cache, **settings).run(variables)
    return {s.item for s in scores}

  assert items(languages=('a',)) == {
      'validation0',
      'validation2',
      'validation4',
  }
  assert items(languages=('a',), limit=2) == {'validation0', 'validation2'}
  cut = _build(objective, cache, max_frames=1).run(variables)
  assert {s.weight for s in cut} == {1.0}


def test_clips_without_a_cache_are_of_the_datas(cache, objective):
  source = data.TokenCrops(cache=str(cache))
  bits = evaluation.Bits(clips=evaluation.TokenClips(split='test', limit=1))
  full = bits.with_data(source)
  assert full.clips == evaluation.TokenClips(
      cache=str(cache), split='test', limit=1
  )
  assert full.with_data(data.TokenCrops(cache='other')) == full
  audio = evaluation.Bits(clips=evaluation.AudioClips())
  assert audio.with_data(source) == audio
  with pytest.raises(config.ConfigError, match='config.data has no cache'):
    bits.with_data(data.AudioCrops()).build(objective)


def test_a_cache_that_does_not_fit_is_refused(cache, objective):
  other = objectives.NLL(decoder=decoders.Decoder(vocabularies=(V, V + 1)))
  with pytest.raises(config.ConfigError, match='vocabularies'):
    _build(other, cache)
  with pytest.raises(encoding.TokensError, match='another is asked for'):
    _build(objective, cache, tokenizer_hash='another')
