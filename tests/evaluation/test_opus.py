"""Opus gives back the same clip, in time, at about the bitrate asked for."""

import numpy as np
import pytest

from audiolm_jax.evaluation import metrics
from audiolm_jax.evaluation import opus


@pytest.fixture(scope='module')
def clip():
  """A second of a gliding tone with overtones, at 16 kHz."""
  t = np.arange(16001) / 16000
  phase = 2 * np.pi * (200 * t + 60 * t**2)
  return np.float32(
      0.2 * sum(np.sin(n * phase) / n for n in range(1, 12)) * np.hanning(16001)
  )


@pytest.mark.parametrize('rate', [16000, 11025])
def test_what_comes_out_is_in_time_and_as_long(clip, rate):
  coded = opus.encode_decode(clip, rate, 24000)
  assert coded.audio.shape == clip.shape and coded.audio.dtype == np.float32
  inner = slice(1000, -1000)
  by_lag = [
      metrics.si_sdr(clip[inner], np.roll(coded.audio, lag)[inner])
      for lag in range(-3, 4)
  ]
  assert np.argmax(by_lag) == 3 and by_lag[3] > 10


def test_bits_are_those_of_the_bitrate(clip):
  seconds = len(clip) / 16000
  low, high = (
      opus.encode_decode(clip, 16000, rate).bits / seconds
      for rate in (6000, 24000)
  )
  assert 5000 < low < 8000 and 16000 < high < 30000
