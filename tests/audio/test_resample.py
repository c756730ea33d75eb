"""Sample rates, channels and levels."""

import numpy as np
import pytest

from audiolm_jax.audio import resample


def _tone(frequency, rate, seconds=1.0):
  t = np.arange(int(seconds * rate)) / rate
  return np.sin(2 * np.pi * frequency * t)[:, None].astype(np.float32)


@pytest.mark.parametrize('rates', [(22050, 16000), (16000, 48000)])
def test_resampled_tone_is_the_tone(rates):
  source, target = rates
  out = resample.resample(_tone(1000, source), source, target)
  expected = _tone(1000, target)
  assert out.shape == expected.shape and out.dtype == np.float32
  inner = slice(target // 10, -target // 10)
  np.testing.assert_allclose(out[inner], expected[inner], atol=2e-3)


def test_what_lies_above_the_new_band_is_removed():
  out = resample.resample(_tone(7000, 16000), 16000, 8000)
  assert np.abs(out[800:-800]).max() < 1e-3


def test_integers_are_not_resampled():
  for rates in ((16000, 8000), (16000, 16000)):
    with pytest.raises(ValueError, match='int16 samples'):
      resample.resample(np.ones((100, 1), np.int16), *rates)


def test_mono_is_the_mean_of_channels_at_another_rate():
  tone = _tone(1000, 16000)
  both = np.concatenate([tone, 3 * tone], axis=1)
  out = resample.mono(both, 16000, 8000)
  assert out.shape == (8000,)
  np.testing.assert_allclose(
      out, 2 * resample.resample(tone, 16000, 8000)[:, 0], atol=1e-5
  )
  opposite = np.concatenate([tone, -tone], axis=1)
  assert not resample.mono(opposite, 16000, 8000).any()


def test_remix():
  stereo = np.float32([[1, 0], [0, 1]])
  np.testing.assert_array_equal(resample.remix(stereo, 1), [[0.5], [0.5]])
  np.testing.assert_array_equal(
      resample.remix(stereo[:, :1], 2), [[1, 1], [0, 0]]
  )
  with pytest.raises(ValueError, match='3 of 2'):
    resample.remix(stereo, 3)


def test_gain_reaches_the_level_without_clipping():
  tone = 0.1 * _tone(440, 16000)
  assert resample.rms_db(tone) == pytest.approx(-23.01, abs=0.01)
  level = resample.rms_db(tone * resample.gain_to(tone, -30.0))
  assert level == pytest.approx(-30, abs=1e-3)
  # A peak holds it back; silence is left alone.
  assert np.abs(tone * resample.gain_to(tone, 0.0)).max() <= 1 + 1e-6
  assert resample.gain_to(np.zeros((10, 1)), -20.0) == 1
