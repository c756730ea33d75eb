"""eSpeak's variants say the phones that are asked for, at the times they say."""

import collections
import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import signal

from audiolm_jax import config
from audiolm_jax.data import espeak_engine
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import espeak
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.evaluation import pitch
from tests.data.speech_world import world_hashes

ENGINE = espeak.Espeak()
# Every phone, each in a place where English would make something else of it: a
# flap of t, an i of a last ɪ, an ɹ between ɝ and a vowel, l and r in vowels.
TRAP = tuple(
    tuple(word.split())
    for word in (
        'b ʌ t ɪ,f ɔ r,æ l,z ɝ,eɪ ʃ,θ ɔ l z,ð aɪ ŋ k,h ʊ d,j u s ɪ,ɡ oʊ v,'
        'w ɛ l v,m ɑ r k,n i p,ɪ l ɛ v ʌ n'
    ).split(',')
)


def _utterance(words=TRAP, variant='klatt6', **fields):
  return espeak.Utterance(espeak.Speaker(f'x/{variant}'), words, **fields)


def test_phonemes_are_espeaks():
  words = [('t', 'u'), ('f', 'ɔ', 'r', 't', 'i', 'n'), ('l', 'u', 's', 'ɪ')]
  assert espeak.phonemes(words) == "t2'u: f'O:r-t2i:n l'u:s'I2"
  assert {p for word in TRAP for p in word} == {
      p for p in phones_lib.PHONES if p != phones_lib.SILENCE
  }


def test_every_variant_says_exactly_what_is_asked_and_unlike_all_others():
  text = espeak.phonemes(TRAP)
  count = sum(map(len, TRAP))
  heard = set()
  for i, name in enumerate(espeak_engine.variants()):
    spoken = espeak_engine.speak_phonemes(
        text,
        f'en-us+{name}',
        espeak.RATES[i % 4],
        espeak.PITCHES[i % 3],
        espeak.PITCH_RANGES[i % 3],
    )
    found = espeak.spans(spoken, TRAP)
    said = [start for p, start in found if p != phones_lib.SILENCE]
    assert len(said) == count and np.diff(said).min() > 90  # 4 ms.
    assert said[-1] < len(spoken.audio)
    heard.add(spoken.audio.tobytes())
  assert len(heard) == 104


def test_every_word_of_every_language_is_said_exactly():
  for name in ENGINE.speaks:
    lexicon = list(languages.language(name).lexicon.values())
    order = np.random.default_rng(0).permutation(len(lexicon))
    for start in range(0, len(order), 12):
      words = tuple(lexicon[i] for i in order[start : start + 12])
      factors = ENGINE.factors(_utterance(words))
      said = [p for p, *_ in factors['phones'] if p != phones_lib.SILENCE]
      assert said == [phone for word in words for phone in word]


def test_what_is_not_said_as_asked_is_refused():
  spoken = espeak_engine.speak_phonemes("b'VtI", 'en-us')
  with pytest.raises(espeak_engine.SpeechError, match="said 'ɾ', not 't'"):
    espeak.spans(spoken, [('b', 'ʌ', 't', 'ɪ')])
  spoken = espeak_engine.speak_phonemes("b'V", 'en-us')
  with pytest.raises(espeak_engine.SpeechError, match='only the first 2 of 3'):
    espeak.spans(spoken, [('b', 'ʌ', 's')])
  with pytest.raises(espeak_engine.SpeechError, match="said 'ʌ', not ''"):
    espeak.spans(spoken, [('b',)])


@pytest.mark.parametrize('variant', ['klatt6', 'f2', 'robosoft3'])
def test_times_are_those_of_the_audio(variant):
  """Hiss is where s is: best without a shift, to 10 ms."""
  words = (('s', 'i', 's', 'ɑ'), ('b', 'ɔ', 's', 'u'), ('m', 'æ', 's'))
  u = _utterance(words, variant)
  audio, factors = ENGINE.render(u), ENGINE.factors(u)
  assert factors['phones'][-1][2] == pytest.approx(len(audio) / 16000, abs=1e-3)
  band = signal.butter(6, 5000, 'highpass', fs=16000, output='sos')
  power = signal.sosfiltfilt(band, audio) ** 2
  hiss = np.sqrt(power[: len(power) // 160 * 160].reshape(-1, 160).mean(1))
  t = (np.arange(len(hiss)) + 0.5) / 100
  wanted = np.zeros(len(hiss))
  for phone, start, end in factors['phones']:
    wanted[(t >= start) & (t < end)] = phone == 's'
  shifts = range(-8, 9)
  found = [np.corrcoef(np.roll(wanted, k), hiss)[0, 1] for k in shifts]
  assert abs(shifts[int(np.argmax(found))]) <= 1 and max(found) > 0.75
  # Words begin and end with their phones.
  inside = [
      [p for p, a, b in factors['phones'] if start <= a and b <= end]
      for start, end in factors['word_times']
  ]
  assert inside == [list(word) for word in words]


def test_factors_do_what_they_say():
  words = (('m', 'æ', 'n'), ('n', 'oʊ'), ('l', 'u', 'n', 'i'))

  def f0(**fields):
    audio = ENGINE.render(_utterance(words, 'klatt6', **fields))
    track = pitch.track(audio, 16000)
    return np.log(track[track > 0])

  centre = [
      np.median(f0(pitch=value, pitch_range=0)) for value in espeak.PITCHES
  ]
  assert np.diff(centre).min() > 0.1
  spread = [f0(pitch_range=value).std() for value in espeak.PITCH_RANGES]
  assert np.diff(spread).min() > 0.02
  seconds = [
      ENGINE.seconds(_utterance(words, rate=value)) for value in espeak.RATES
  ]
  assert np.diff(seconds).max() < -0.02
  loud, soft = (
      ENGINE.render(_utterance(words, energy=value)) for value in (3.0, -6.0)
  )
  np.testing.assert_allclose(soft, loud * 10 ** (-9 / 20), atol=1e-6)


def test_pools_share_no_variant_and_hold_all():
  pools = [ENGINE.speakers(pool) for pool in ENGINE.pools]
  assert [len(pool) for pool in pools] == [35, 35, 34]
  names = [speaker.variant for pool in pools for speaker in pool]
  assert sorted(names) == list(espeak_engine.variants())
  for pool, speakers in zip(ENGINE.pools, pools, strict=True):
    assert all(s.name == f'{pool}/{s.variant}' for s in speakers)


def test_clips_are_drawn_with_the_entropies_on_the_card():
  world = clips_lib.World('digits', 'espeak_lm')
  drawn = [clips_lib.clip(world, i) for i in range(4000)]
  bits = clips_lib.entropies(world)
  for name in ('rate', 'pitch', 'pitch_range', 'energy', 'speaker'):
    values = [
        getattr(c.utterance, name)
        for c in drawn
        if name != 'speaker' or c.split != 'test'
    ]
    shares = np.array(list(collections.Counter(values).values())) / len(values)
    found = -(shares * np.log2(shares)).sum()
    assert found == pytest.approx(bits[name], abs=0.02)
  assert bits.keys() == {
      'text',
      'rate',
      'pitch',
      'pitch_range',
      'energy',
      'speaker',
  }
  where = {}
  for c in drawn:
    assert where.setdefault(c.text, c.split) == c.split
    test = c.split == 'test'
    pool = 'espeak_held_out' if test else 'espeak_lm'
    assert c.utterance.speaker in ENGINE.speakers(pool)
  # What a clip cost is as much, its text and its pool's size apart.
  kept = [next(c for c in drawn if c.split == s) for s in ('train', 'test')]
  for c, size in zip(kept, (35, 34), strict=True):
    costs = clips_lib.costs(c.factors())
    assert costs.pop('text') == -c.log2p
    assert costs.pop('speaker') == math.log2(size)
    assert costs == {k: bits[k] for k in costs}


def test_a_clip_has_what_all_clips_have():
  world = clips_lib.World('sentences', 'espeak_tokenizer')
  clip = clips_lib.clip(world, 3)
  factors = json.loads(clips_lib.to_json(clip))
  phones = factors['phones']
  assert phones[0][0] == phones[-1][0] == 'sil'
  assert all(a[2] == b[1] for a, b in itertools.pairwise(phones))
  assert all(a < b for _, a, b in phones)
  assert not any(a[0] == b[0] == 'sil' for a, b in itertools.pairwise(phones))
  spoken = languages.language('sentences').phones(clip.words)
  assert [p for p, *_ in phones if p != 'sil'] == [p for w in spoken for p in w]
  audio = clip.audio()
  assert audio.dtype == np.float32 and np.abs(audio).max() <= 1
  assert clip.seconds == len(audio) / 16000
  twin = clip.twin()
  assert sum(a != b for a, b in zip(clip.words, twin.words, strict=True)) == 1
  assert dataclasses.replace(twin.utterance, words=()) == dataclasses.replace(
      clip.utterance, words=()
  )
  noisy = clips_lib.clip(dataclasses.replace(world, channels=True), 3)
  assert noisy.utterance == clip.utterance and noisy.channel != clip.channel
  text = clips_lib.card(world)
  for name, bits in clips_lib.entropies(world).items():
    (line,) = [x for x in text.splitlines() if x.startswith(f'{name:17s}')]
    assert f'{bits:.3f}' in line


def test_pools_name_their_engine():
  with pytest.raises(config.ConfigError, match="language = 'sentences'.*piper"):
    clips_lib.World('sentences', 'piper')
  pools = [pool for engine in clips_lib.ENGINES for pool in engine.pools]
  assert len(set(pools)) == len(pools)
  assert pools[:3] == ['tokenizer', 'lm', 'held_out']  # Places are seeds.


def test_a_clip_ends_in_silence():
  with pytest.raises(ValueError, match="ends in silence, not in 'a'"):
    engine_lib.timeline([('a', 3)], 10, 1.0)
  assert engine_lib.timeline(
      [('sil', 1), ('a', 2), ('sil', 5), ('sil', 6)], 10, 1.0
  ) == (('sil', 0.0, 0.2), ('a', 0.2, 0.5), ('sil', 0.5, 1.0))


def test_audio_is_the_same_in_another_process_and_order():
  here = world_hashes.here('matrix', 'espeak_lm', range(6))
  order = (5, 1, 3, 0, 4, 2)
  assert world_hashes.elsewhere('matrix', 'espeak_lm', order) == here
