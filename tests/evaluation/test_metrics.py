"""Closed forms and invariances of the distances."""

import numpy as np
import pytest

from audiolm_jax.evaluation import metrics


@pytest.fixture(scope='module')
def clip():
  rng = np.random.default_rng(0)
  return rng.standard_normal(8000).astype(np.float32)


@pytest.mark.parametrize('decibels', [-10.0, 0.0, 20.0])
@pytest.mark.parametrize('gain', [0.1, 1.0, 3.0])
def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_powers(decibels, gain):
  time = np.arange(1600) / 1600
  reference = np.sin(2 * np.pi * 40 * time)
  noise = np.cos(2 * np.pi * 40 * time) * 10 ** (-decibels / 20)
  value = metrics.si_sdr(reference, gain * (reference + noise) + 0.3)
  assert value == pytest.approx(decibels, abs=1e-6)


def test_si_sdr_is_bounded_where_the_ratio_is_not(clip):
  low, high = metrics.SI_SDR_BOUNDS
  assert metrics.si_sdr(clip, -2 * clip) == high
  assert metrics.si_sdr(clip, np.zeros_like(clip)) == low
  assert np.isnan(metrics.si_sdr(np.zeros_like(clip), clip))


def test_identity_has_no_distance(clip):
  assert metrics.mel_distance(clip, clip, 16000) == 0
  assert metrics.stft_distance(clip, clip) == 0


def test_mel_distance_of_a_gain_is_its_logarithm(clip):
  value = metrics.mel_distance(clip, 0.1 * clip, 16000)
  assert value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize('gain', [0.5, 2.0])
def test_stft_distance_of_a_gain(clip, gain):
  # Convergence |1 - gain| and |ln gain|, at every resolution alike.
  value = metrics.stft_distance(clip, gain * clip)
  assert value == pytest.approx(abs(1 - gain) + abs(np.log(gain)), rel=1e-3)


def test_distances_grow_with_noise(clip):
  noise = np.random.default_rng(1).standard_normal(clip.size)
  levels = [0.01, 0.1, 1.0]
  mel = [metrics.mel_distance(clip, clip + a * noise, 16000) for a in levels]
  stft = [metrics.stft_distance(clip, clip + a * noise) for a in levels]
  assert mel == sorted(mel) and mel[0] > 0
  assert stft == sorted(stft) and stft[0] > 0


def test_mel_distance_finds_where_the_energy_is():
  time = np.arange(16000) / 16000
  # Over a floor of noise, as the side lobes of a pure tone rule its logarithm.
  floor = 0.01 * np.random.default_rng(0).standard_normal(16000)
  tone, near, far = (
      np.sin(2 * np.pi * f * time) + floor for f in (1000, 1005, 4000)
  )
  distance = metrics.mel_distance
  assert distance(tone, near, 16000) < distance(tone, far, 16000) / 2


@pytest.mark.parametrize('samples', [1, 7, 500])
def test_short_clips_have_finite_distances(samples):
  a = np.linspace(-1, 1, samples)
  b = np.zeros(samples)
  assert np.isfinite(metrics.mel_distance(a, b, 16000))
  assert np.isfinite(metrics.stft_distance(a, b))


def test_shapes_are_checked(clip):
  with pytest.raises(ValueError, match='one shape'):
    metrics.si_sdr(clip, clip[1:])
  with pytest.raises(ValueError, match='empty'):
    metrics.mel_distance(clip[:0], clip[:0], 16000)
  with pytest.raises(ValueError, match='int16 samples; expected floats'):
    metrics.stft_distance(clip, np.ones(len(clip), np.int16))


def test_code_statistics_closed_forms():
  codes = np.zeros((2, 8, 3), np.int32)
  codes[0, :, 1] = np.arange(8) % 4  # uniform over half of 8
  codes[0, :, 2] = np.arange(8) % 2
  codes[1] = 99  # padding, in part: must not be counted
  codes[1, :4, 0] = 0
  codes[1, :4, 1] = np.arange(4)
  codes[1, :4, 2] = 1
  counts = metrics.code_counts(codes, np.array([8, 4]), (4, 8, 2))
  first, second, third = metrics.code_statistics(counts)
  assert (first.usage, first.entropy, first.bits) == (0.25, 0.0, 2.0)
  assert second.usage == 0.5 and second.entropy == pytest.approx(2.0)
  p = 8 / 12
  expected = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
  assert third.usage == 1 and third.entropy == pytest.approx(expected)


def test_code_counts_add_and_refuse_foreign_codes():
  rng = np.random.default_rng(0)
  codes = rng.integers(0, 5, (4, 6, 2))
  num_samples = np.array([6, 0, 3, 5])
  whole = metrics.code_counts(codes, num_samples, (5, 5))
  parts = [
      metrics.code_counts(codes[i : i + 1], num_samples[i : i + 1], (5, 5))
      for i in range(4)
  ]
  for slot in range(2):
    np.testing.assert_array_equal(whole[slot], sum(p[slot] for p in parts))
  assert whole[0].sum() == num_samples.sum()
  with pytest.raises(ValueError, match='vocabulary is 4'):
    metrics.code_counts(np.full((1, 2, 1), 4), np.array([2]), (4,))
