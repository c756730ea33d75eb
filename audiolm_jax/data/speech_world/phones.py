"""The sounds: formants, places, noises, and how long each lasts.

Formants are in Hz: means of 33 men, 28 women and 15 children (Peterson and
Barney 1952, from phonTools' pb52); of e and o, of men (Hillenbrand et al. 1995)
and scaled. Locus equations F2onset = k F2vowel + c after Sussman; durations
after Klatt (1979).
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Float
import numpy as np

STEP = 0.01  # Seconds: all durations are whole steps.
# What a woman's and a child's formants are of a man's.
GROUP_SCALES = (1.0, 1.162, 1.351)
_MEASURED = {
    'i': ((267, 2294, 2937), (310, 2783, 3312), (360, 3178, 3763)),
    'ɪ': ((392, 1993, 2569), (441, 2474, 3063), (534, 2744, 3604)),
    'ɛ': ((526, 1854, 2481), (608, 2334, 2999), (700, 2616, 3564)),
    'æ': ((664, 1727, 2420), (863, 2049, 2832), (1017, 2334, 3366)),
    'ʌ': ((631, 1192, 2377), (758, 1409, 2768), (855, 1592, 3328)),
    'ɑ': ((718, 1091, 2442), (864, 1229, 2783), (1030, 1383, 3188)),
    'ɔ': ((568, 836, 2403), (587, 915, 2736), (694, 1064, 3263)),
    'ʊ': ((437, 1023, 2245), (469, 1162, 2685), (560, 1402, 3332)),
    'u': ((307, 876, 2239), (378, 961, 2666), (432, 1193, 3250)),
    'ɝ': ((489, 1360, 1709), (503, 1641, 1977), (569, 1806, 2194)),
}
VOWEL_FORMANTS: dict[str, Float[np.ndarray, 'G 3']] = {
    **{name: np.array(rows, float) for name, rows in _MEASURED.items()},
    'e': np.outer(GROUP_SCALES, (476, 2090, 2688)),
    'o': np.outer(GROUP_SCALES, (498, 910, 2459)),
}
# Vowel -> the targets that it moves between.
VOWELS = {name: (name, name) for name in _MEASURED} | {
    'aɪ': ('ɑ', 'ɪ'),
    'eɪ': ('e', 'i'),
    'oʊ': ('o', 'ʊ'),
}
# Place -> k and c (Hz, of a man) of its locus equation.
LOCI = {
    'labial': (0.87, 106.0),
    'coronal': (0.43, 1073.0),
    'velar': (0.66, 807),
}


@dataclasses.dataclass(frozen=True)
class Consonant:
  """How a consonant sounds.

  Attributes:
    kind: 'stop', 'fricative', 'nasal' or 'approximant'.
    place: in `LOCI`; '' for h, which has no place in the mouth.
    voiced: whether the folds vibrate.
    formants: F1, F2, F3 of a man, of nasals and approximants.
    zero: of a nasal, Hz of a man.
    band: of the noise, from and to, Hz of a man; (0, 0) where it is shaped by
      the vowel's formants (h), or by its F2 alone (k and g).
    gain: of the noise, dB.
    onset: of a stop, seconds between the burst and the vowel's voice.
  """

  kind: str
  place: str
  voiced: bool = True
  formants: tuple[float, float, float] = (0, 0, 0)
  zero: float = 0
  band: tuple[float, float] = (0, 0)
  gain: float = 0
  onset: float = 0


def _stops(place, band, names):
  return {
      names[0]: Consonant('stop', place, False, band=band, onset=0.05),
      names[1]: Consonant('stop', place, True, band=band, onset=0.01),
  }


def _fricatives(place, band, gain, names):
  return {
      name: Consonant('fricative', place, i == 1, band=band, gain=gain - 6 * i)
      for i, name in enumerate(names)
  }


CONSONANTS: dict[str, Consonant] = {
    **_stops('labial', (200, 1500), 'pb'),
    **_stops('coronal', (3500, 5000), 'td'),
    **_stops('velar', (0, 0), 'kɡ'),
    **_fricatives('coronal', (4000, 8000), 0, 'sz'),
    **_fricatives('coronal', (2500, 5000), 0, 'ʃ'),
    **_fricatives('labial', (300, 8000), -20, 'fv'),
    **_fricatives('coronal', (1200, 8000), -20, 'θð'),
    'h': Consonant('fricative', '', False, gain=-6),
    'm': Consonant('nasal', 'labial', formants=(270, 1050, 2300), zero=1000),
    'n': Consonant('nasal', 'coronal', formants=(270, 1450, 2500), zero=1700),
    'ŋ': Consonant('nasal', 'velar', formants=(270, 1900, 2600), zero=3000),
    'w': Consonant('approximant', 'labial', formants=(290, 610, 2150)),
    'j': Consonant('approximant', 'coronal', formants=(260, 2070, 3020)),
    'r': Consonant('approximant', 'coronal', formants=(310, 1060, 1380)),
    'l': Consonant('approximant', 'coronal', formants=(310, 1050, 2880)),
}
SILENCE = 'sil'
PHONES = (SILENCE, *VOWELS, *CONSONANTS)

# Inherent and least milliseconds.
_DURATIONS = {
    'i': (155, 55),
    'ɪ': (135, 40),
    'ɛ': (150, 70),
    'æ': (230, 80),
    'ʌ': (140, 60),
    'ɑ': (240, 100),
    'ɔ': (240, 100),
    'ʊ': (160, 60),
    'u': (210, 70),
    'ɝ': (180, 80),
    'aɪ': (250, 150),
    'eɪ': (190, 70),
    'oʊ': (220, 80),
    's': (125, 60),
    'ʃ': (125, 80),
    'z': (75, 40),
    'f': (100, 80),
    'v': (60, 40),
    'θ': (90, 60),
    'ð': (50, 30),
    'h': (80, 20),
    'm': (70, 60),
    'n': (60, 50),
    'ŋ': (95, 60),
    'w': (80, 60),
    'j': (80, 40),
    'r': (80, 30),
    'l': (80, 40),
    # Closure, burst and aspiration.
    'p': (120, 90),
    't': (120, 90),
    'k': (120, 90),
    'b': (85, 60),
    'd': (75, 50),
    'ɡ': (80, 60),
}
_LEAST = {'stop': 5, 'fricative': 3, 'nasal': 3, 'approximant': 3}


def _before(following):
  """What the consonant after a vowel makes of it."""
  consonant = CONSONANTS.get(following)
  if consonant is None or consonant.kind == 'approximant':
    return 1.0
  if consonant.kind == 'nasal':
    return 0.85
  if consonant.kind == 'stop':
    return 1.2 if consonant.voiced else 0.7
  return 1.6 if consonant.voiced else 1.0


def durations(
    words: Sequence[Sequence[str]], rate: float = 1.0
) -> list[list[int]]:
  """Steps of each phone of each word of a clause: Klatt's rules.

  The first vowel of a word bears its stress. A duration is
  Dmin + (Dinherent - Dmin) times the product of the rules that apply, divided
  by the rate.

  Args:
    words: their phones.
    rate: 1 is Klatt's; 2 is twice as fast.

  Raises:
    KeyError: for a phone that is none of `PHONES`.
  """
  result = []
  for i, word in enumerate(words):
    vowels = [j for j, phone in enumerate(word) if phone in VOWELS]
    steps = []
    for j, phone in enumerate(word):
      inherent, least = _DURATIONS[phone]
      factor = 1.0
      if phone in VOWELS:
        factor *= _before(word[j + 1] if j + 1 < len(word) else '')
        factor *= 0.8 if len(vowels) > 1 else 1.0
        factor *= 0.85 if j != vowels[-1] else 1.0
        if j != vowels[0]:
          factor, least = factor * 0.7, least / 2
        factor *= 1.4 if i == len(words) - 1 and j == vowels[-1] else 1.0
      elif any(
          0 <= k < len(word) and word[k] in CONSONANTS for k in (j - 1, j + 1)
      ):
        factor *= 0.7
      seconds = (least + (inherent - least) * factor) / 1000 / rate
      shortest = _LEAST[CONSONANTS[phone].kind] if phone in CONSONANTS else 4
      if phone in CONSONANTS and CONSONANTS[phone].onset > 0.02:
        shortest = 8
      steps.append(max(shortest, round(seconds / STEP)))
    result.append(steps)
  return result
