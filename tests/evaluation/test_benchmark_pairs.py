"""The evaluator of benchmark pairs: known preferences, and a tiny real model."""

import dataclasses
import types

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax.audio import files
from audiolm_jax.audio import resample
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import benchmark_pairs
from audiolm_jax.evaluation import benchmarks
from audiolm_jax.models import audio_tokenizer
from tests.data import made_caches
from tests.decoders import small
from tests.evaluation import benchmark_folders
from tests.models import small_directories
from tests.tokenizers import tiny

WORDS = [('cat', 0), ('dog', 3), ('bird', 400)]


def _summary(pairs, likelihoods):
  scores = list(benchmark_pairs.preferences(pairs, likelihoods))
  assert all(score.weight == 1 for score in scores)
  return evaluation_base.summarize(scores)


def test_who_knows_words_finds_them_all(tmp_path):
  folder = benchmark_folders.swuggy(tmp_path, WORDS)
  pairs = benchmarks.swuggy(folder)
  known = _summary(pairs, lambda paths: [p.name[0] == 'w' for p in paths])
  assert known == {
      'swuggy': 1,
      'swuggy_in_vocabulary': 1,
      'swuggy_frequency_oov': 1,
      'swuggy_frequency_1-5': 1,
      'swuggy_frequency_>100': 1,
  }
  turned = _summary(pairs, lambda paths: [p.name[0] == 'n' for p in paths])
  assert set(turned.values()) == {0}
  deaf = _summary(pairs, lambda paths: np.zeros(len(paths)))
  assert set(deaf.values()) == {0.5}


def test_voices_are_averaged_before_items(tmp_path):
  """As ZeroSpeech does: an item with more voices counts for no more."""
  one, two = tmp_path / 'one', tmp_path / 'two'
  pairs = benchmarks.swuggy(benchmark_folders.swuggy(one, WORDS[:1], 'ABC'))
  other = benchmarks.swuggy(benchmark_folders.swuggy(two, WORDS[1:2], 'A'))
  pairs += [dataclasses.replace(pair, item='1') for pair in other]
  # Of cat A is right, B ties, C is wrong; dog is right.
  table = {'wcat_A': 2, 'ncat_A': 1, 'ncat_C': 1, 'wdog_A': 3}
  found = _summary(pairs, lambda paths: [table.get(p.stem, 0) for p in paths])
  assert found['swuggy'] == pytest.approx((1.5 / 3 + 1) / 2)
  assert found['swuggy_frequency_oov'] == pytest.approx(0.5)
  assert found['swuggy_in_vocabulary'] == 1


def test_types_and_parts_are_apart(tmp_path):
  kinds = [('agreement', 'a'), ('agreement', 'b'), ('npi', 'a')]
  pairs = benchmarks.sblimp(benchmark_folders.sblimp(tmp_path / 's', kinds))
  right = ('r0_A', 'w1_A', 'r2_A')
  found = _summary(pairs, lambda paths: [p.stem in right for p in paths])
  assert found == {
      'sblimp': pytest.approx(2 / 3),
      'sblimp_agreement': 0.5,
      'sblimp_npi': 1,
  }
  folder = benchmark_folders.salmon(tmp_path / 'm', {'x': 4, 'y': 1})
  pairs = benchmarks.salmon(folder)
  # It only hears the background of x, and that of sample 3 the wrong way.
  found = _summary(
      pairs,
      lambda paths: [
          p.parent.name == 'x' and (p.stem[-1] == '0') != ('_3_' in p.name)
          for p in paths
      ],
  )
  assert found == {'salmon_x': 0.75, 'salmon_y': 0.5}


@pytest.fixture(scope='module')
def codec(tmp_path_factory):
  """A tiny codec at 1.6 kHz, and its directory."""
  module, variables = tiny.codec('state')
  path = tmp_path_factory.mktemp('models') / 'codec'
  small_directories.write(path, 'codec', module, variables)
  return audio_tokenizer.AudioTokenizer(module, variables), path


def _objective(**backbone):
  """A language model of the first two slots of the codec."""
  decoder = decoders.Decoder(
      vocabularies=(8, 8),
      pattern=patterns.Delay(),
      backbone=small.stack(**backbone),
  )
  return objectives.NLL(decoder=decoder, rate=100.0)


def _variables(objective, seed=0):
  batch = objective.decoder.example_batch(1, {'frames': 2})
  params = small.parameters(
      objective.decoder, *objective.decoder.read(batch), seed=seed
  )
  return {'lm': {'params': params, 'state': {}}}


def _bits(model, tokenizer, path):
  """A recording's bits and frames, by the parts of the package alone."""
  audio, rate = files.read(path)
  audio = resample.resample(audio, rate, tokenizer.spec.sample_rate)
  codes = tokenizer.encode(audio[None]).codes[:, :, :2]
  padded = np.zeros((1, 32, 2), np.int32)
  padded[:, : codes.shape[1]] = codes
  frames = codes.shape[1]
  return model.bits_per_frame(padded, np.array([frames]))[0] * frames, frames


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_a_real_models_own_likelihoods_decide(codec, tmp_path, reduction):
  tokenizer, path = codec
  folder = benchmark_folders.swuggy(tmp_path / 'dev', WORDS)
  objective = _objective()
  evaluator = evaluation.BenchmarkPairs(
      benchmark='swuggy',
      folder=str(folder),
      tokenizer=str(path),
      reduction=reduction,
      batch_size=4,
  ).build(objective)
  for seed in (0, 1):
    variables = _variables(objective, seed)
    model = objective.bind(variables)
    scores = list(evaluator.run(variables))
    means = evaluation_base.summarize(scores)
    known = {p.stem: _bits(model, tokenizer, p) for p in folder.glob('*.wav')}
    if reduction == 'mean':
      known = {name: (bits / n, n) for name, (bits, n) in known.items()}
    expected = [
        np.mean([known[f'w{w}_{v}'][0] < known[f'n{w}_{v}'][0] for v in 'AB'])
        for w, _ in WORDS
    ]
    by_item = {s.item: s.sum for s in scores if s.name == 'swuggy'}
    assert by_item == {str(i): value for i, value in enumerate(expected)}
    assert means['swuggy'] == pytest.approx(np.mean(expected))


def test_recordings_are_read_once_for_all_variables(codec, tmp_path):
  _, path = codec
  folder = benchmark_folders.salmon(tmp_path / 'salmon', {'x': 6})
  objective = _objective()
  settings = evaluation.BenchmarkPairs(
      benchmark='salmon', folder=str(folder), tokenizer=str(path), limit=4
  )
  evaluator = settings.build(objective)
  assert len(evaluator.pairs) == 4
  first = _variables(objective)
  scores = list(evaluator.run(first))
  for wav in folder.rglob('*.wav'):
    wav.unlink()
  assert list(evaluator.run(first)) == scores
  others = [list(evaluator.run(_variables(objective, s))) for s in (7, 8, 9)]
  assert any(other != scores for other in others)
  with pytest.raises(benchmarks.BenchmarkError, match='sample_INDEX_0.wav'):
    settings.build(objective)


def test_the_tokenizer_is_the_one_that_made_the_cache(codec, tmp_path):
  tokenizer, path = codec
  folder = benchmark_folders.salmon(tmp_path / 'salmon', {'x': 1})
  objective = _objective()

  def settings(fingerprint):
    identity = made_caches.identity(
        (8, 8),
        {'train': 1},
        spec=tokenizer.spec,
        codebooks=3,
        fingerprint=fingerprint,
        tokenizer=str(path),
    )
    clip = made_caches.example(
        np.zeros((2, 3), np.int32), {'id': 'x'}, tokenizer.spec.hop
    )
    cache = made_caches.write(
        tmp_path / fingerprint[:9], identity, lambda *_: clip
    )
    pairs = evaluation.BenchmarkPairs(benchmark='salmon', folder=str(folder))
    return pairs.with_data(types.SimpleNamespace(cache=cache))

  scores = list(
      settings(tokenizer.fingerprint())
      .build(objective)
      .run(_variables(objective))
  )
  assert [score.name for score in scores] == ['salmon_x']
  with pytest.raises(config.ConfigError, match='is another tokenizer'):
    settings('another').build(objective)
  kept = settings('another').with_data(types.SimpleNamespace(cache='other'))
  assert kept.cache.endswith('another')


def test_what_cannot_be_compared_is_refused(codec, tmp_path):
  _, path = codec
  folder = benchmark_folders.salmon(tmp_path / 'salmon', {'x': 1})
  settings = evaluation.BenchmarkPairs(
      benchmark='salmon', folder=str(folder), tokenizer=str(path)
  )
  nowhere = dataclasses.replace(settings, tokenizer=None)
  with pytest.raises(config.ConfigError, match='tokenizer = None'):
    nowhere.build(_objective())
  with pytest.raises(config.ConfigError, match='not model whole'):
    settings.build(objectives.Toy())
  wide = objectives.NLL(decoder=decoders.Decoder(vocabularies=(9,)))
  with pytest.raises(config.ConfigError, match='speaks tokens'):
    settings.build(wide)


def test_a_recording_that_does_not_fit_is_named(codec, tmp_path):
  _, path = codec
  folder = benchmark_folders.salmon(tmp_path / 'salmon', {'x': 1})
  settings = evaluation.BenchmarkPairs(
      benchmark='salmon', folder=str(folder), tokenizer=str(path)
  )
  few = _objective(positions='learned', max_positions=6)
  # 5 frames and one step for the delay are 6 steps; 6 frames are too many.
  for seconds, fits in ((0.05, True), (0.06, False)):
    benchmark_folders.record(folder / 'x' / 'sample_0_1.wav', 3, seconds)
    scores = settings.build(few).run(_variables(few))
    if fits:
      assert len(list(scores)) == 1
    else:
      with pytest.raises(
          benchmarks.BenchmarkError, match='sample_0_1.wav is longer .* 6 are'
      ):
        list(scores)
  benchmark_folders.record(folder / 'x' / 'sample_0_0.wav', 3, 0.0)
  objective = _objective()
  with pytest.raises(benchmarks.BenchmarkError, match='0_0.wav holds no audio'):
    list(settings.build(objective).run(_variables(objective)))
