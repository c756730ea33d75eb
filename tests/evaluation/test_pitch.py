"""The tracker on tones and on known f0; errors on tracks made for them."""

import numpy as np
import pytest

from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.evaluation import pitch
from tests.evaluation import worlds


@pytest.mark.parametrize('rate', [8000, 16000, 44100])
@pytest.mark.parametrize('hertz', [70.0, 123.4, 250.0, 440.0])
def test_tones_have_their_f0(rate, hertz):
  t = np.arange(rate) / rate
  tone = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 6))
  track = pitch.track(0.1 * tone, rate)
  assert len(track) == 100
  inner = track[5:-5]
  assert (inner > 0).all()
  np.testing.assert_allclose(inner, hertz, rtol=0.003)


def test_a_rate_whose_band_ends_below_the_filter_is_tracked():
  tone = np.sin(2 * np.pi * 100 * np.arange(1600) / 1600)
  track = pitch.track(tone, 1600)
  np.testing.assert_allclose(track[5:-5], 100, rtol=0.01)


def test_noise_silence_and_nothing_have_no_voice():
  rng = np.random.default_rng(0)
  assert np.mean(pitch.track(rng.standard_normal(16000), 16000) > 0) < 0.2
  assert not pitch.track(np.zeros(800), 16000).any()
  assert pitch.track(np.zeros(0), 16000).shape == (0,)
  assert pitch.track(np.zeros(1), 16000).shape == (1,)


def test_a_sweep_is_followed_where_it_is():
  t = np.arange(32000) / 16000
  hertz = 100 + 50 * t
  tone = np.sin(2 * np.pi * np.cumsum(hertz) / 16000)
  track = pitch.track(tone, 16000)
  at = (np.arange(200) + 0.5) * pitch.HOP
  np.testing.assert_allclose(track[5:-5], (100 + 50 * at)[5:-5], rtol=0.01)


def test_errors_are_counted_as_they_are_defined():
  reference = np.array([100.0, 100, 100, 0, 0, 200])
  estimate = np.array([100.0, 125, 0, 50, 0, 200 * 2 ** (1 / 12)])
  errors = pitch.compare(reference, estimate)
  assert errors[:4] == (6, 3, 2, 1)
  scores = errors.scores()
  assert scores['vde'] == (2, 6) and scores['ffe'] == (3, 6)
  assert scores['gpe'] == (1, 3)
  fifth = 1200 * np.log2(1.25)
  assert scores['f0_cents'][0] == pytest.approx(fifth + 100)
  assert scores['f0_cents_squared'][0] == pytest.approx(fifth**2 + 1e4)
  assert pitch.compare(np.zeros(0), np.zeros(0)).scores() == {}
  with pytest.raises(ValueError, match='one shape'):
    pitch.compare(reference, estimate[:3])


def test_known_f0_is_found_and_a_copy_has_no_error():
  judge = judges_lib.F0()
  totals = {}
  for clip in worlds.clips(20, language='sentences'):
    audio = clip['audio'][:, 0]
    given = judges_lib.Clip(audio, audio, 16000, factors=clip['factors'])
    for name, (total, weight) in judge(given).items():
      old = totals.get(name, (0, 0))
      totals[name] = old[0] + total, old[1] + weight
  rates = {name: total / weight for name, (total, weight) in totals.items()}
  print(rates)
  assert rates['ffe'] == rates['f0_cents'] == 0
  assert rates['ffe_known'] == rates['ffe_known_original'] < 0.12
  assert rates['gpe_known'] < 0.03 and rates['f0_cents_known'] < 50


def test_an_octave_is_a_gross_error_of_1200_cents():
  t = np.arange(16000) / 16000
  low, high = (np.sin(2 * np.pi * f * t) for f in (110, 220))
  scores = judges_lib.F0()(judges_lib.Clip(low, high, 16000))
  assert 'ffe_known' not in scores
  total, weight = scores['gpe']
  assert total / weight > 0.95
  assert scores['f0_cents'][0] / weight == pytest.approx(1200, rel=0.03)
