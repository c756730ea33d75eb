"""Bits per sample of clips, of the model and of its baselines."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest
import scipy.stats

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import waveform_baselines
from audiolm_jax.streaming import testing

RATE = 100


def _resonance(samples, seed, noise=20.0):
  """x_n = 1.6 x_{n-1} - 0.9 x_{n-2} + Laplace noise, in levels of 16 bits."""
  rng = np.random.default_rng(seed)
  x = np.zeros(samples + 2)
  for n in range(2, samples + 2):
    x[n] = 1.6 * x[n - 1] - 0.9 * x[n - 2] + rng.laplace(scale=noise)
  return np.round(x[2:, None]).astype(np.int32)


class TestFlac:

  def test_noise_has_the_bits_of_its_grid_and_silence_none(self):
    rng = np.random.default_rng(0)
    for bits in (8, 16):
      noise = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (40_000, 1))
      found = waveform_baselines.flac_bits(noise, bits, 16000)
      assert found / len(noise) == pytest.approx(bits, rel=0.01)
    silence = np.zeros((40_000, 1), np.int32)
    assert waveform_baselines.flac_bits(silence, 16, 16000) < 0.05 * 40_000

  def test_headers_are_not_counted(self):
    """Twice as long a clip of noise has twice the bits, short as it is."""
    noise = np.random.default_rng(1).integers(-9000, 9000, (4096, 1))
    one = waveform_baselines.flac_bits(noise[:2048], 16, 16000)
    two = waveform_baselines.flac_bits(noise, 16, 16000)
    assert two == pytest.approx(2 * one, rel=0.02)


class TestLinear:

  def test_every_sample_by_hand(self):
    model = waveform_baselines.Linear(
        np.array([0.9, -0.3]), decay=0.8, gain=0.5, first=7.0, bits=8
    )
    x = np.random.default_rng(0).integers(-128, 128, (30, 2))
    x[4], x[5] = -128, 127
    found = model.bits_of(x)
    for channel in (0, 1):
      average, before = 7.0, []
      for n, value in enumerate(x[:, channel]):
        mean = sum(
            c * p for c, p in zip(model.coefficients, before, strict=False)
        )
        logistic = scipy.stats.logistic(mean, 0.5 * average + 0.1)
        cdf = np.concatenate([[0], logistic.cdf(np.arange(-127.5, 127)), [1]])
        mass = np.diff(cdf)
        assert mass.sum() == pytest.approx(1)
        if mass[value + 128] > 1e-6:  # Else it is lost in 1 - 1.
          assert found[n, channel] == pytest.approx(-np.log2(mass[value + 128]))
        average = 0.8 * average + 0.2 * abs(value - mean)
        before = [value, *before]

  def test_a_resonance_is_found(self):
    clips = [_resonance(3000, seed) for seed in range(4)]
    model = waveform_baselines.fit_linear(clips[:3], 16, order=4)
    np.testing.assert_allclose(model.coefficients, [1.6, -0.9, 0, 0], atol=0.06)
    # Differential entropy of the noise, in levels of 1.
    entropy = math.log2(2 * math.e * 20)
    bits = model.bits_of(clips[3]).mean()
    assert entropy < bits < entropy + 0.2
    flac = waveform_baselines.flac_bits(clips[3], 16, 16000) / 3000
    assert bits < flac < bits + 1

  def test_nothing_to_fit(self):
    with pytest.raises(ValueError, match='more than 4 samples'):
      waveform_baselines.fit_linear([np.zeros((9, 1), int)], 16, order=4)


class _Corpus:
  """Clips of some lengths; clip 3 is of no samples, one is longer than 1 s."""

  def __init__(self, split):
    self._seed = len(split)
    self._lengths = (60, 150, 99, 0, 100, 31)

  def __len__(self):
    return len(self._lengths)

  def seconds(self):
    return np.array(self._lengths) / RATE

  def __getitem__(self, index):
    samples = _resonance(self._lengths[index], [self._seed, index], 200.0)
    return {
        'audio': samples.astype(np.float32) / 32768,
        'sample_rate': RATE,
        **self.factors(index),
    }

  def factors(self, index):
    return {'id': f'clip{index}'}


@pytest.fixture(scope='module', autouse=True)
def corpus():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
        data, 'load_corpus', lambda name, split, languages: _Corpus(split)
    )
    yield


def _objective(**stack):
  stack = {'width': 4, 'skip': 4, 'dilations': (1, 2), 'cycles': 1, **stack}
  decoder = decoders.WaveNet(
      stack=wavenet.GatedStack(**stack),
      head=waveform_heads.Logistics(mixtures=2),
  )
  return objectives.NLL(decoder=decoder, rate=float(RATE))


def _build(objective, baselines=False, **clips):
  clips = evaluation.AudioClips(**clips)
  return evaluation.Bits(clips=clips, baselines=baselines).build(objective)


def test_every_clip_is_scored_whole_and_once():
  objective = _objective()
  init = jax.jit(objective.init, compiler_options=testing.quick_options())
  variables = nn.meta.unbox(init(jax.random.key(0)))
  evaluator = _build(objective, baselines=True, max_seconds=1.2)
  scores = list(evaluator.run(variables))
  found = {(s.name, s.item): s for s in scores}
  assert len(found) == len(scores) == 3 * 5
  bound, clips = objective.bind(variables), _Corpus('validation')
  train = [_grid(_Corpus('train')[i]) for i in (0, 1, 2, 4, 5)]
  linear = waveform_baselines.fit_linear([c[:120] for c in train], 16)
  for i in (0, 1, 2, 4, 5):
    audio = clips[i]['audio'][:120]
    padded = np.pad(audio, ((0, 200 - len(audio)), (0, 0)))[None]
    (bits,) = bound.bits_per_sample(padded, [len(audio)])
    score = found['bits_per_sample', f'clip{i}']
    assert score.weight == len(audio)
    assert score.sum / score.weight == pytest.approx(bits, rel=1e-5)
    samples = _grid(clips[i])[:120]
    score = found['linear/bits_per_sample', f'clip{i}']
    assert score.sum == pytest.approx(linear.bits_of(samples).sum())
    score = found['flac/bits_per_sample', f'clip{i}']
    assert score.sum == waveform_baselines.flac_bits(samples, 16, RATE)
    assert score.weight == len(audio)
  means = evaluation_base.summarize(scores)
  assert means['linear/bits_per_sample'] < means['flac/bits_per_sample']
  # Evaluating again says the same.
  assert list(evaluator.run(variables)) == scores
  few = _build(objective, limit=2).run(variables)
  assert [s.item for s in few] == ['clip5', 'clip0']


def _grid(clip):
  return np.round(clip['audio'] * 32768).astype(np.int32)


def test_a_model_with_conditions_is_refused():
  with pytest.raises(config.ConfigError, match='film = 3'):
    _build(_objective(film=3))
