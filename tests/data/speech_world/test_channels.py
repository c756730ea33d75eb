"""Channels do what they are named for, and by how much."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from audiolm_jax.data.speech_world import channels
from audiolm_jax.data.speech_world import clips as clips_lib

RATE = channels.RATE


def _speech(seed=0, seconds=2.0):
  t = np.arange(int(seconds * RATE)) / RATE
  noise = np.random.default_rng(seed).standard_normal(len(t))
  return (0.05 * noise * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def _power(x, low, high):
  spectrum = np.abs(np.fft.rfft(x)) ** 2
  f = np.fft.rfftfreq(len(x), 1 / RATE)
  return spectrum[(f >= low) & (f < high)].sum()


def test_no_channel_changes_nothing():
  audio = _speech()
  np.testing.assert_array_equal(
      channels.apply(audio, channels.Channel()), audio
  )


@pytest.mark.parametrize('rt60', [0.2, 0.4, 0.8, 1.2])
def test_rooms_decay_as_their_rt60_says(rt60):
  for seed in range(channels.SEEDS):
    response = channels.room_response(rt60, seed)
    assert channels.rt60(response) == pytest.approx(rt60, rel=0.1)
    assert np.sum(response**2) == pytest.approx(1)
  # Of what comes out, too: an impulse's tail is the room's.
  impulse = np.zeros(2 * RATE, np.float32)
  impulse[0] = 0.5
  room = channels.Channel(room=rt60, room_seed=1)
  assert channels.rt60(channels.apply(impulse, room)) == pytest.approx(
      rt60, rel=0.1
  )
  different = channels.room_response(rt60, 0) != channels.room_response(rt60, 1)
  assert different.any()


def test_a_pure_decay_is_measured_exactly():
  t = np.arange(RATE) / RATE
  assert channels.rt60(10 ** (-3 * t / 0.5)) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize('noise', channels.NOISES[1:])
def test_noise_has_its_snr(noise):
  audio = _speech()
  noisy = channels.apply(audio, channels.Channel(noise=noise, noise_seed=2))
  added = noisy.astype(float) - audio
  snr = 10 * np.log10(np.mean(audio**2.0) / np.mean(added**2))
  assert snr == pytest.approx(float(noise.partition('-')[2]), abs=0.01)
  low, high = _power(added, 100, 500), _power(added, 4100, 4500)
  ratio = {'white': 1, 'pink': 14}.get(noise.partition('-')[0])
  if ratio:
    assert low / high == pytest.approx(ratio, rel=0.3)
  else:
    assert low > 1e6 * high


def test_bands_keep_what_is_inside():
  audio = _speech()
  narrow = channels.apply(audio, channels.Channel(band='narrow'))
  assert _power(narrow, 0, 3500) == pytest.approx(
      _power(audio, 0, 3500), rel=0.05
  )
  assert _power(narrow, 5000, 8000) < 1e-3 * _power(audio, 5000, 8000)
  telephone = channels.apply(audio, channels.Channel(band='telephone'))
  assert _power(telephone, 0, 150) < 1e-3 * _power(audio, 0, 150)
  assert _power(telephone, 4500, 8000) < 1e-3 * _power(audio, 4500, 8000)
  assert _power(telephone, 500, 3000) == pytest.approx(
      _power(audio, 500, 3000), rel=0.05
  )


def test_clipping_and_mu_law():
  audio = _speech()
  cut = channels.apply(audio, channels.Channel(clipping=0.25))
  level = 0.25 * np.abs(audio).max()
  np.testing.assert_allclose(cut, audio.clip(-level, level), rtol=1e-6)
  for bits, worst in ((8, 0.03), (5, 0.2)):
    x = np.linspace(-1, 1, 200001)
    coded = channels.mu_law(x, bits)
    assert len(np.unique(np.round(coded, 9))) == 2**bits
    # Half a step of the companded scale: a relative error, but near zero.
    large = np.abs(x) > 0.1
    relative = np.abs(coded - x)[large] / np.abs(x)[large]
    assert relative.max() < worst
    np.testing.assert_allclose(channels.mu_law(coded, bits), coded, atol=1e-9)


@pytest.mark.parametrize(
    'codec, least, most', [('gsm', 6, 20), ('adpcm', 20, 40), ('vorbis', 8, 25)]
)
def test_codecs_keep_time_and_length_and_lose_something(codec, least, most):
  """Errors are within what each codec is known to make: SNR in dB."""
  for i in range(3):
    audio = clips_lib.clip(clips_lib.World('digits'), i).audio()
    audio = audio[: len(audio) - i]  # Of no whole number of blocks.
    out = channels.apply(audio, channels.Channel(codec=codec))
    assert out.shape == audio.shape and out.dtype == np.float32
    np.testing.assert_array_equal(out, channels.coded(audio, codec))
    alike = np.correlate(np.pad(out, 40), audio)
    assert np.argmax(alike) == 40  # No shift.
    snr = 10 * np.log10(np.mean(audio**2) / np.mean((out - audio) ** 2))
    assert least < snr < most
    # Of 8 kHz, GSM has nothing above half of that.
    high = _power(out, 4500, 8000) / _power(audio, 4500, 8000)
    assert high < 1e-3 if codec == 'gsm' else high > 0.05
  nothing = channels.coded(np.zeros(1000, np.float32), codec)
  assert np.abs(nothing).max() < 1e-3


def test_loud_audio_through_a_codec_stays_within_full_scale():
  square = np.sign(np.sin(np.arange(RATE) * 0.1)).astype(np.float32)
  for codec in channels.CODECS[1:]:
    assert 0.8 < np.abs(channels.coded(square, codec)).max() <= 1


def test_drawn_channels_have_the_entropy_on_the_card():
  rng = np.random.default_rng(0)
  drawn = [channels.draw(rng) for _ in range(40000)]
  expected = channels.entropies()
  parts = {
      'room': ('room', 'room_seed'),
      'noise': ('noise', 'noise_seed'),
      'band': ('band',),
      'clipping': ('clipping',),
      'mu-law': ('bits',),
      'codec': ('codec',),
  }
  assert parts.keys() == expected.keys()
  assert {f for each in parts.values() for f in each} == {
      f.name for f in dataclasses.fields(channels.Channel)
  }
  for name, fields in parts.items():
    counts = collections.Counter(
        tuple(getattr(c, f) for f in fields) for c in drawn
    )
    bits = -sum(n / 40000 * math.log2(n / 40000) for n in counts.values())
    assert bits == pytest.approx(expected[name], abs=0.01)


def test_a_channel_is_deterministic_and_bounded():
  audio = _speech()
  rng = np.random.default_rng(1)
  for channel in (channels.draw(rng) for _ in range(40)):
    first, again = (channels.apply(audio, channel) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == audio.shape and first.dtype == np.float32
    assert np.abs(first).max() <= 1
  with pytest.raises(ValueError, match="no noise 'blue'"):
    channels.apply(audio, channels.Channel(noise='blue-3'))
  with pytest.raises(ValueError, match="no band 'x'"):
    channels.apply(audio, channels.Channel(band='x'))
  with pytest.raises(ValueError, match="no codec 'x'"):
    channels.apply(audio, channels.Channel(codec='x'))
