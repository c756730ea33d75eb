"""The second engine: eSpeak's 104 variants, which say exactly the phones asked.

Words are given as eSpeak's own phonemes, not as text, so that all engines say a
text with the same phones. eSpeak reports what it says and when: whatever is not
what was asked is refused, so the phones on record are those in the audio.
"""

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from audiolm_jax.audio import files
from audiolm_jax.data import espeak_engine
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import phones as phones_lib

RATES = (130, 150, 170, 195)  # Words a minute.
PITCHES = (30, 45, 60, 75)  # Of eSpeak's 0 to 100.
PITCH_RANGES = (25, 50, 75)
_VOICE = 'en-us'  # Its vowels are those of `phones.VOWELS`.
_LEVEL = 0.5  # At 0 dB: the loudest variant at 3 dB is within full scale.
_LEAD, _TAIL = 0.06, 0.1  # Seconds of silence, as the first engine has them.
# Phone -> eSpeak's phoneme, where it has another name. Its `t` becomes a flap
# between vowels, `t2` does not.
_PHONEMES = {
    'i': 'i:',
    'ɪ': 'I2',
    'ɛ': 'E',
    'æ': 'a',
    'ʌ': 'V',
    'ɑ': 'A:',
    'ɔ': 'O:',
    'ʊ': 'U',
    'u': 'u:',
    'ɝ': '3:',
    'aɪ': 'aI',
    'eɪ': 'eI',
    'oʊ': 'oU',
    'ʃ': 'S',
    'θ': 'T',
    'ð': 'D',
    'ŋ': 'N',
    'ɡ': 'g',
    't': 't2',
}
# Those of which its usual phoneme would melt into the vowel before them.
_AFTER_VOWEL = {'l': 'l/', 'r': 'r-'}
# Phone -> what eSpeak calls it in IPA, where that is another name.
IPA = {'i': 'iː', 'ɑ': 'ɑː', 'ɔ': 'ɔː', 'u': 'uː', 'ɝ': 'ɜː', 'r': 'ɹ'}
_STRESSES = 'ˈˌ'


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A variant of eSpeak's voices.

  Attributes:
    name: 'POOL/VARIANT'.
  """

  name: str

  @property
  def variant(self) -> str:
    """What eSpeak calls it."""
    return self.name.partition('/')[2]


@dataclasses.dataclass(frozen=True)
class Utterance:
  """What eSpeak is asked to say and how.

  Attributes:
    speaker: which variant.
    words: their phones.
    rate: words a minute.
    pitch: in `PITCHES`.
    pitch_range: in `PITCH_RANGES`.
    energy: dB.
  """

  speaker: Speaker
  words: tuple[tuple[str, ...], ...]
  rate: int = 160
  pitch: int = 50
  pitch_range: int = 50
  energy: float = 0.0


class Espeak(engine_lib.Renderer):
  """eSpeak's variants in three pools that share none."""

  pools = ('espeak_tokenizer', 'espeak_lm', 'espeak_held_out')
  held_out = 'espeak_held_out'
  measured = 100

  def speakers(self, pool):
    # Every third one: variants of like names are in all pools.
    names = espeak_engine.variants()[self.pools.index(pool) :: len(self.pools)]
    return tuple(Speaker(f'{pool}/{name}') for name in names)

  def draw(self, rng, pool, words):
    speaker = engine_lib.pick(rng, self.speakers(pool))
    rate, pitch, pitch_range, energy = (
        engine_lib.pick(rng, values)
        for values in (RATES, PITCHES, PITCH_RANGES, engine_lib.ENERGIES)
    )
    return Utterance(speaker, tuple(words), rate, pitch, pitch_range, energy)

  def said(self, utterance):
    return _said(utterance)

  def factors(self, utterance):
    speaker = utterance.speaker
    known = {'name': speaker.name, 'variant': speaker.variant}
    return {**super().factors(utterance), 'speaker': known}

  def grids(self, pool):
    return {
        'rate': RATES,
        'pitch': PITCHES,
        'pitch_range': PITCH_RANGES,
        'energy': engine_lib.ENERGIES,
        'speaker': self.speakers(pool),
    }

  def ranges(self, pool):
    return {
        'rate': f'{RATES} words a minute',
        'pitch': f"{PITCHES} of eSpeak's 0 to 100",
        'pitch_range': f'{PITCH_RANGES}; three variants have none',
        'energy': f'{engine_lib.ENERGIES} dB',
    }


def phonemes(words: Sequence[Sequence[str]]) -> str:
  """A text as eSpeak's phonemes, stressed on the first vowel of each word.

  A word that ends in another ɪ is stressed there, too: else eSpeak's English
  makes an i of it.

  Args:
    words: their phones.
  """
  result = []
  for word in words:
    vowels = [i for i, phone in enumerate(word) if phone in phones_lib.VOWELS]
    stressed = vowels[:1]
    if word[-1] == 'ɪ':
      stressed.append(len(word) - 1)
    parts = []
    for i, phone in enumerate(word):
      name = _PHONEMES.get(phone, phone)
      if i + 1 not in vowels:
        name = _AFTER_VOWEL.get(phone, name)
      parts.append("'" * (i in stressed) + name)
    result.append(''.join(parts))
  return ' '.join(result)


def spans(
    spoken: espeak_engine.Spoken, words: Sequence[Sequence[str]]
) -> list[tuple[str, int]]:
  """The phones that were asked for, and the sample where each starts.

  Pauses are silence. The ɹ that English links ɝ to a vowel with is part of ɝ.

  Raises:
    SpeechError: if eSpeak said anything else.
  """
  asked = [phone for word in words for phone in word]
  found: list[tuple[str, int]] = []
  for heard, start in spoken.phones:
    name = heard.lstrip(_STRESSES)
    said = sum(phone != phones_lib.SILENCE for phone, _ in found)
    due = asked[said] if said < len(asked) else ''
    if not name:
      found.append((phones_lib.SILENCE, start))
    elif due and name == IPA.get(due, due):
      found.append((due, start))
    elif not (name == 'ɹ' and found and found[-1][0] == 'ɝ'):
      raise espeak_engine.SpeechError(
          f'eSpeak said {name!r}, not {due!r}, as phone {said} of'
          f' {phonemes(words)!r}.'
      )
  said = [phone for phone, _ in found if phone != phones_lib.SILENCE]
  if said != asked:
    raise espeak_engine.SpeechError(
        f'eSpeak said only the first {len(said)} of {len(asked)} phones of'
        f' {phonemes(words)!r}.'
    )
  return found


@functools.lru_cache(maxsize=8)  # Of a clip, audio and times are one's.
def _said(utterance) -> engine_lib.Said:
  u = utterance
  spoken = espeak_engine.speak_phonemes(
      phonemes(u.words),
      f'{_VOICE}+{u.speaker.variant}',
      u.rate,
      u.pitch,
      u.pitch_range,
  )
  rate = spoken.sample_rate
  lead, tail = round(_LEAD * rate), round(_TAIL * rate)
  audio = files.to_float(spoken.audio) * _LEVEL * 10 ** (u.energy / 20)
  starts = [(name, lead + start) for name, start in spans(spoken, u.words)]
  return engine_lib.Said.of(np.pad(audio, (lead, tail)), rate, starts, u.words)
