"""The LF pulse, Fujisaki's f0 and pulse times against closed forms."""

import numpy as np
import pytest

from audiolm_jax.data.speech_world import source as source_lib


@pytest.mark.parametrize(
    'rd, te, alpha, epsilon',
    [
        (0.3, 0.3522, 10.039, 227.27),
        (1.0, 0.6500, 2.8065, 26.313),
        (2.7, 0.7870, 0.4218, 6.063),
    ],
)
def test_lf_has_its_known_solution_and_no_area(rd, te, alpha, epsilon):
  p = source_lib.lf_parameters(rd)
  assert p['te'] == pytest.approx(te, abs=1e-4)
  assert p['alpha'] == pytest.approx(alpha, rel=1e-4)
  assert p['epsilon'] == pytest.approx(epsilon, rel=1e-4)
  pulse = source_lib.lf_pulse(rd, 200000)
  assert abs(pulse.mean()) < 1e-5
  assert pulse.min() == pytest.approx(-1, abs=3e-3)
  assert abs(pulse[0]) < 1e-3 and abs(pulse[-1]) < 1e-3


def test_lf_spectrum_is_the_transform_of_the_pulse():
  pulse = source_lib.lf_pulse(1.3, 100000)
  te = source_lib.lf_parameters(1.3)['te']
  t = np.arange(100000) / 100000
  spectrum = source_lib.lf_spectrum(1.3)
  assert abs(spectrum[0]) < 1e-3
  for harmonic in (0.5, 1, 2, 7, 20):
    direct = (pulse * np.exp(-2j * np.pi * harmonic * (t - te))).mean()
    entry = spectrum[int(harmonic * source_lib.PER_HARMONIC)]
    assert abs(entry - direct) < 2e-4


def test_fujisaki_commands_peak_where_they_should():
  t = np.linspace(-1, 3, 400001)
  phrase = source_lib.phrase_response(t, 3.0)
  assert phrase.max() == pytest.approx(3 / np.e)
  assert t[phrase.argmax()] == pytest.approx(1 / 3, abs=1e-4)
  assert not phrase[t <= 0].any()
  accent = source_lib.accent_response(t, 20.0, 0.9)
  assert accent.max() == 0.9 and (np.diff(accent) >= 0).all()
  at = np.array([0.1])
  assert source_lib.accent_response(at)[0] == pytest.approx(1 - 3 * np.exp(-2))
  f0 = source_lib.f0_contour(t, 100.0, [(0.0, 0.5)], [(1.0, 1.5, 0.2)])
  np.testing.assert_allclose(f0[t < 0], 100, rtol=1e-12)
  level = np.interp([1.4, 2.9], t, f0)
  late = 100 * np.exp(0.5 * source_lib.phrase_response(np.array([1.4, 2.9])))
  np.testing.assert_allclose(level, late * np.exp([0.18, 0]), rtol=1e-6)


def test_pulses_come_where_f0_says():
  t = np.arange(0, 10, 1e-3)
  rng = np.random.default_rng(0)
  times = source_lib.pulse_times(t, np.full(len(t), 123.0), 0, rng)
  np.testing.assert_allclose(np.diff(times), 1 / 123, rtol=1e-6)
  glide = 100 + 10 * t
  times = source_lib.pulse_times(t, glide, 0, rng)
  middle = (times[1:] + times[:-1]) / 2
  np.testing.assert_allclose(1 / np.diff(times), 100 + 10 * middle, rtol=1e-4)


def test_jitter_is_1_128_sigma():
  t = np.arange(0, 200, 2e-3)
  rng = np.random.default_rng(1)
  times = source_lib.pulse_times(t, np.full(len(t), 150.0), 0.008, rng)
  periods = np.diff(times)
  jitter = np.abs(np.diff(periods)).mean() / periods.mean()
  assert jitter == pytest.approx(2 / np.sqrt(np.pi) * 0.008, rel=0.03)
