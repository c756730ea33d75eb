"""Slaney's mel filters, against formulae written another way."""

import numpy as np
import pytest

from audiolm_jax.ops import mel


def _slaney_hertz(m):
  """Slaney's scale as a piecewise function of one number."""
  if m < 15:
    return m * 200 / 3
  return 1000 * 6.4 ** ((m - 15) / 27)


def test_slaney_scale():
  # 15 mels at 1 kHz; 27 more are a factor of 6.4.
  assert mel.hertz_to_mel(1000.0, 'slaney') == pytest.approx(15)
  assert mel.hertz_to_mel(6400.0, 'slaney') == pytest.approx(42)
  assert mel.hertz_to_mel(500.0, 'slaney') == pytest.approx(7.5)
  hertz = np.array([0.0, 10.0, 999.0, 1001.0, 4000.0, 11025.0])
  mels = mel.hertz_to_mel(hertz, 'slaney')
  np.testing.assert_allclose(mel.mel_to_hertz(mels, 'slaney'), hertz)
  np.testing.assert_allclose([_slaney_hertz(m) for m in mels], hertz)


@pytest.mark.parametrize('size, bands', [(2048, 320), (512, 80), (32, 5)])
@pytest.mark.parametrize('low, high', [(0.0, None), (50.0, 7000.0)])
def test_slaney_filters_are_interpolated_triangles(size, bands, low, high):
  rate = 16000
  top = rate / 2 if high is None else high
  ends = [mel.hertz_to_mel(f, 'slaney') for f in (low, top)]
  knots = [_slaney_hertz(m) for m in np.linspace(*ends, bands + 2)]
  bins = np.fft.rfftfreq(size, 1 / rate)
  want = np.stack(
      [
          np.interp(
              bins, knots[i : i + 3], [0, 2 / (knots[i + 2] - knots[i]), 0]
          )
          for i in range(bands)
      ],
      axis=1,
  )
  got = mel.mel_filters(rate, size, bands, low, high, 'slaney')
  np.testing.assert_allclose(got, want, atol=1e-7)


def test_slaney_filters_have_area_one():
  filters = mel.mel_filters(16000, 65536, 40, convention='slaney')
  areas = filters.sum(axis=0) * 16000 / 65536
  np.testing.assert_allclose(areas, 1, rtol=1e-3)


def test_spectrogram_uses_the_convention():
  rng = np.random.default_rng(0)
  magnitudes = rng.uniform(size=(2, 3, 257)).astype(np.float32)
  options = (16000, 30, 40.0, 7600.0, 'slaney')
  want = magnitudes @ mel.mel_filters(16000, 512, *options[1:])
  got = mel.mel_spectrogram(magnitudes, *options)
  np.testing.assert_allclose(got, want, rtol=1e-5)
