"""What is measured on the audio is what was asked for."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import linalg
from scipy import signal

from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.data.speech_world import synthesiser
from audiolm_jax.data.speech_world import utterance as utterance_lib

RATE = synthesiser.RATE


def _man(f0=100.0, **changes):
  man = next(s for s in speakers.pool('lm') if s.group == 0)
  return dataclasses.replace(man, f0=f0, jitter=0.0, breath=0.0, **changes)


def _steady(speaker, phone='ɑ', **options):
  """One long vowel at a level pitch."""
  return utterance_lib.Utterance(
      speaker, ('sil', phone, 'sil'), (6, 106, 116), f0_range=0.0, **options
  )


def _lpc_formants(audio, order=18):
  """Frequencies of the narrow poles of linear prediction."""
  x = np.append(audio[0], audio[1:] - 0.97 * audio[:-1])
  x = x * np.hamming(len(x))
  r = np.correlate(x, x, 'full')[len(x) - 1 : len(x) + order]
  a = linalg.solve_toeplitz(r[:-1], r[1:])
  roots = np.roots(np.append(1, -a))
  roots = roots[(roots.imag > 0) & (np.abs(roots) > 0.85)]
  found = np.sort(np.angle(roots)) * RATE / 2 / np.pi
  return found[found > 150]


@pytest.mark.parametrize('phone', ['ɑ', 'i', 'æ', 'ʌ', 'ɛ', 'ɪ'])
def test_formants_are_those_asked_for(phone):
  # One pitch's harmonics pull F1 by up to half their distance: several don't.
  measured = []
  for f0 in np.linspace(85, 125, 13):
    man = _man(f0, rd=1.0)
    asked = man.formants(phone)
    found = _lpc_formants(synthesiser.render(_steady(man, phone))[5000:9000])
    measured.append([found[np.abs(found - f).argmin()] for f in asked])
  np.testing.assert_allclose(np.mean(measured, axis=0), asked, rtol=0.03)


def test_a_resonator_is_klatts():
  f, bandwidth, size = 700.0, 60.0, 512
  below, gain = synthesiser.resonance(np.array([f]), bandwidth, size)
  c = -np.exp(-2 * np.pi * bandwidth / RATE)
  b = 2 * np.exp(-np.pi * bandwidth / RATE) * np.cos(2 * np.pi * f / RATE)
  w, response = signal.freqz(
      [1 - b - c], [1, -b, -c], 257, include_nyquist=True
  )
  np.testing.assert_allclose(
      gain[0] / below[0] * np.exp(1j * w), response, rtol=2e-3, atol=1e-5
  )


@pytest.mark.parametrize('f0', [80.0, 130.0, 240.0])
def test_pitch_is_that_asked_for(f0):
  audio = synthesiser.render(_steady(_man(f0), 'ʌ'))[4000:12000]
  r = np.correlate(audio, audio, 'full')[len(audio) - 1 :]
  r = r / np.arange(len(audio), 0, -1)
  low, high = int(RATE / 500), int(RATE / 60)
  lag = low + int(r[low:high].argmax())
  a, b, c = r[lag - 1 : lag + 2]
  lag += 0.5 * (a - c) / (a - 2 * b + c)
  multiple = round(lag * f0 / RATE)
  assert RATE / (lag / multiple) == pytest.approx(f0, rel=0.005)
  # A subharmonic would be half of it.
  assert multiple >= 1 and r[round(RATE / f0)] > 0.9 * r[0]


def test_a_moving_pitch_is_heard_at_the_pulses():
  plan = utterance_lib.plan(
      _man(), [('m', 'ɑ'), ('n', 'i')], accents=(1, 0), f0_range=1.4
  )
  times = synthesiser.pulse_times(plan, np.random.default_rng(0))
  middle = (times[1:] + times[:-1]) / 2
  np.testing.assert_allclose(1 / np.diff(times), plan.f0(middle), rtol=2e-3)
  # The accent lifts the first word by 1.4 * .25 * .9 at most.
  flat = dataclasses.replace(plan, accents=())
  lift = np.log(plan.f0(middle) / flat.f0(middle))
  assert lift.max() == pytest.approx(1.4 * 0.25 * 0.9, rel=0.01)
  # The largest amplitude of audio falls on pulses' closures.
  audio = np.abs(synthesiser.render(_steady(_man(90.0, rd=0.6), 'ʌ')))
  at = synthesiser.pulse_times(
      _steady(_man(90.0, rd=0.6), 'ʌ'), np.random.default_rng(0)
  )
  for t in at[(at > 0.3) & (at < 0.8)]:
    around = audio[int(t * RATE) - 80 : int(t * RATE) + 80]
    assert -5 <= around.argmax() - 80 <= 20


@pytest.mark.parametrize(
    'place, phone', [('labial', 'b'), ('coronal', 'd'), ('velar', 'ɡ')]
)
def test_locus_equations(place, phone):
  """F2 where the voice starts against F2 of the vowel, on the tracks."""
  man = _man(scale=1.0)
  starts, vowels = [], []
  for vowel in phones_lib.VOWEL_FORMANTS:
    if vowel not in phones_lib.VOWELS:
      continue
    plan = utterance_lib.plan(man, [(phone, vowel)])
    track = np.array(utterance_lib.articulate(plan).formants)
    voice = plan.starts[2] * phones_lib.STEP
    starts.append(np.interp(voice, track[:, 0], track[:, 2]))
    vowels.append(man.formants(vowel)[1])
  slope, intercept = np.polyfit(vowels, starts, 1)
  k, c = phones_lib.LOCI[place]
  assert slope == pytest.approx(k) and intercept == pytest.approx(c)


def _levels(plan):
  """Power of the 10-ms steps, and the share of it above 3 kHz."""
  audio = synthesiser.render(plan)
  assert len(audio) == plan.ends[-1] * 160
  frames = np.abs(np.fft.rfft(audio.reshape(-1, 160) * np.hanning(160))) ** 2
  return frames.sum(1), frames[:, 30:].sum(1) / (frames.sum(1) + 1e-9)


def test_phones_are_where_the_times_say():
  plan = utterance_lib.plan(
      _man(), [('s', 'ɑ', 't', 'ɑ'), ('b', 'ɑ', 'ʃ', 'i')]
  )
  power, high = _levels(plan)
  for phone, start, end in zip(
      plan.phones, plan.starts, plan.ends, strict=True
  ):
    inside = slice(start + 1, end - 1)
    if phone in ('s', 'ʃ'):
      assert high[inside].min() > 0.7
    if phone in ('ɑ', 'i'):
      assert high[inside].max() < 0.5 and power[inside].min() > 1.0
    if phone == 't':  # Closure, then the burst and aspiration.
      closure = slice(start + 3, end - 6)
      assert power[closure].max() < 1e-3 * power[start - 2]
      assert power[end - 6 : end].max() > 100 * power[closure].max()
    if phone == 'sil' and start == 0:
      assert power[: end - 2].max() < 1e-6
  # A vowel starts within a step of its time.
  onset = plan.starts[2]
  assert high[onset - 2] > 0.7 > 0.5 > high[onset + 1]


def test_energy_noise_seed_and_breath_do_what_they_say():
  base = _steady(_man())
  audio = synthesiser.render(base)
  louder = synthesiser.render(dataclasses.replace(base, energy=6.0))
  np.testing.assert_allclose(louder, audio * 10**0.3, rtol=1e-5)
  breathy = _steady(dataclasses.replace(_man(), breath=0.5))
  first, same, other = (
      synthesiser.render(dataclasses.replace(breathy, noise_seed=i))
      for i in (0, 0, 1)
  )
  assert (first == same).all() and (first != other).any()
  assert np.abs(audio).max() < 1


def test_every_phone_sounds_and_nothing_is_cut():
  for speaker in speakers.pool('lm')[:8]:
    for phone in phones_lib.CONSONANTS:
      audio = synthesiser.render(
          utterance_lib.plan(speaker, [('ʌ', phone, 'i')], energy=3.0)
      )
      assert np.isfinite(audio).all() and np.abs(audio).max() < 1
      assert audio.dtype == np.float32


def test_a_plan_is_refused_where_it_does_not_fit():
  with pytest.raises(ValueError, match='needs a word'):
    utterance_lib.plan(_man(), [])
  with pytest.raises(ValueError, match='1 of longer'):
    utterance_lib.plan(_man(), [('b', 'ɑ')], longer=[1])


def _hashes(order):
  digits = languages.language('digits')
  result = {}
  for i in order:
    plan = utterance_lib.plan(
        speakers.pool('held_out')[i],
        digits.phones(('seven', 'six', 'zero')),
        noise_seed=i,
    )
    audio = synthesiser.render(plan).tobytes()
    result[str(i)] = hashlib.sha256(audio).hexdigest()
  return result


def test_audio_is_the_same_in_another_process_and_order():
  here = _hashes(range(4))
  code = (
      'import json, sys; sys.path.insert(0, sys.argv[1]);'
      'import test_synthesiser as t; print(json.dumps(t._hashes([3, 1, 0, 2])))'
  )
  folder = __file__.rpartition('/')[0]
  done = subprocess.run(
      [sys.executable, '-c', code, folder], capture_output=True, check=True
  )
  assert json.loads(done.stdout) == here
