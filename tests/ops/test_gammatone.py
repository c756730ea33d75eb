"""Gammatone filters: centres, widths and heights by their definition."""

import numpy as np
import pytest

from audiolm_jax.ops import gammatone


def test_the_scale_is_the_integral_of_one_over_the_bandwidth():
  hertz = np.linspace(50, 8000, 4001)
  np.testing.assert_allclose(
      gammatone.erb_to_hertz(gammatone.hertz_to_erb(hertz)), hertz
  )
  # 21.4 is 1 / (24.7 x 4.37e-3 x log10 e) to three digits.
  slope = np.gradient(gammatone.hertz_to_erb(hertz), hertz)
  np.testing.assert_allclose(
      slope[1:-1], 1 / gammatone.bandwidth(hertz[1:-1]), rtol=5e-3
  )


def test_a_filter_is_1_at_its_centre_and_12_db_down_a_width_away():
  # 0 and 8 kHz in bins of 1 Hz; one filter, at 1000 Hz.
  (filters,) = gammatone.gammatone_filters(16000, 16000, 1, 1000.0).T
  assert filters.argmax() == 1000 and filters[1000] == pytest.approx(1)
  width = round(1.019 * float(gammatone.bandwidth(1000.0)))
  assert filters[1000 + width] == pytest.approx(2**-4, rel=0.02)
  np.testing.assert_allclose(filters[900:1000], filters[1100:1000:-1])


def test_filters_are_ordered_and_each_peaks_near_its_centre():
  filters = gammatone.gammatone_filters(16000, 512, 64)
  assert filters.shape == (257, 64) and filters.dtype == np.float32
  peaks = filters.argmax(axis=0) * 16000 / 512
  assert (np.diff(peaks) >= 0).all()
  assert peaks[0] <= 62.5 and peaks[-1] == pytest.approx(7200, abs=16)
