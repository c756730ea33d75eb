"""What is said: sub-languages, their words, and ungrammatical twins.

`sentences` has made-up words and English's order, with a verb that agrees in
number with a noun any number of words before it; `digits` are strings of
English digits, `sums` are true sums, `matrix` the matrix test's sentences.
`syllables` has nonsense words of one or two syllables and no order: whoever
learns to recognise phones from it knows nothing of what the others may say.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Literal, get_args

import numpy as np

from audiolm_jax import config
from audiolm_jax.data.speech_world import grammar as grammar_lib
from audiolm_jax.data.speech_world import phones as phones_lib

# A new one comes last: the place of a language is a part of its clips' seeds.
Name = Literal['sentences', 'digits', 'sums', 'matrix', 'syllables']
LANGUAGES: tuple[str, ...] = get_args(Name)
NUMBERS = (
    'zero one two three four five six seven eight nine ten eleven twelve'
    ' thirteen fourteen fifteen sixteen seventeen eighteen'
).split()
_ENGLISH = {
    'zero': 'z ɪ r oʊ',
    'one': 'w ʌ n',
    'two': 't u',
    'three': 'θ r i',
    'four': 'f ɔ r',
    'five': 'f aɪ v',
    'six': 's ɪ k s',
    'seven': 's ɛ v ʌ n',
    'eight': 'eɪ t',
    'nine': 'n aɪ n',
    'ten': 't ɛ n',
    'eleven': 'ɪ l ɛ v ʌ n',
    'twelve': 't w ɛ l v',
    'thirteen': 'θ ɝ t i n',
    'fourteen': 'f ɔ r t i n',
    'fifteen': 'f ɪ f t i n',
    'sixteen': 's ɪ k s t i n',
    'seventeen': 's ɛ v ʌ n t i n',
    'eighteen': 'eɪ t i n',
    'plus': 'p l ʌ s',
    'minus': 'm aɪ n ʌ s',
    'is': 'ɪ z',
    'peter': 'p i t ɝ',
    'alan': 'æ l ʌ n',
    'barry': 'b æ r i',
    'hannah': 'h æ n ʌ',
    'kathy': 'k æ θ i',
    'lucy': 'l u s i',
    'nina': 'n i n ʌ',
    'rachel': 'r eɪ ʃ ʌ l',
    'steven': 's t i v ʌ n',
    'thomas': 't ɑ m ʌ s',
    'bought': 'b ɔ t',
    'gives': 'ɡ ɪ v z',
    'got': 'ɡ ɑ t',
    'has': 'h æ z',
    'kept': 'k ɛ p t',
    'ordered': 'ɔ r d ɝ d',
    'sees': 's i z',
    'sold': 's oʊ l d',
    'wants': 'w ɑ n t s',
    'wins': 'w ɪ n z',
    'green': 'ɡ r i n',
    'heavy': 'h ɛ v i',
    'dark': 'd ɑ r k',
    'old': 'oʊ l d',
    'pink': 'p ɪ ŋ k',
    'pretty': 'p r ɪ t i',
    'red': 'r ɛ d',
    'small': 's m ɔ l',
    'thin': 'θ ɪ n',
    'white': 'w aɪ t',
    'beds': 'b ɛ d z',
    'books': 'b ʊ k s',
    'desks': 'd ɛ s k s',
    'flowers': 'f l ɑ w ɝ z',
    'mugs': 'm ʌ ɡ z',
    'rings': 'r ɪ ŋ z',
    'ships': 'ʃ ɪ p s',
    'shoes': 'ʃ u z',
    'spoons': 's p u n z',
    'toys': 't ɔ ɪ z',
}
# How made-up words are written.
_LETTERS = {
    'i': 'ee',
    'ɪ': 'i',
    'ɛ': 'e',
    'æ': 'a',
    'ʌ': 'u',
    'ɑ': 'aa',
    'ɔ': 'o',
    'ʊ': 'uu',
    'u': 'oo',
    'ɝ': 'er',
    'aɪ': 'ie',
    'eɪ': 'ai',
    'oʊ': 'oa',
    'ʃ': 'sh',
    'θ': 'th',
    'ð': 'dh',
    'ŋ': 'ng',
    'ɡ': 'g',
    'j': 'y',
}
_NONSENSE = range(2, 6)  # Words of a text of `syllables`.
# Number is heard in the last vowel of nouns and verbs; those of verbs last alike.
NOUN_ENDINGS = {'singular': 'u', 'plural': 'i'}
VERB_ENDINGS = {'singular': 'ɔ', 'plural': 'ɑ'}


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Where number is said, and where it must be remembered.

  Attributes:
    noun: position of the noun.
    verb: position of the verb.
  """

  noun: int
  verb: int

  @property
  def distance(self) -> int:
    """Words between the noun and the verb."""
    return self.verb - self.noun - 1


@dataclasses.dataclass(frozen=True)
class Language:
  """A grammar and how its words are pronounced.

  Attributes:
    name: in `LANGUAGES`.
    grammar: of whole texts; unambiguous.
    lexicon: word -> its phones.
    classes: class -> its words, where the grammar has classes that matter.
  """

  name: str
  grammar: grammar_lib.Grammar
  lexicon: Mapping[str, tuple[str, ...]]
  classes: Mapping[str, tuple[str, ...]] = dataclasses.field(
      default_factory=dict
  )

  def mean_phones(self) -> float:
    """Phones of a text, without silence, on average."""
    return self.grammar.mean({w: len(p) for w, p in self.lexicon.items()})

  def bits_a_phone(self) -> float:
    """Text's entropy over its mean number of phones."""
    return self.grammar.entropy() / self.mean_phones()

  def phones(self, words: Sequence[str]) -> list[tuple[str, ...]]:
    """Each word's phones.

    Raises:
      ConfigError: naming a word that the language has not.
    """
    unknown = [word for word in words if word not in self.lexicon]
    if unknown:
      raise config.ConfigError(f'{self.name} has no word {unknown[0]!r}')
    return [self.lexicon[word] for word in words]

  def agreement(self, words: Sequence[str]) -> Agreement | None:
    """Of a sentence's first noun and its verb; None where nothing agrees."""
    if 'V' not in self.classes:
      return None
    nouns, verbs = set(self.classes['N']), set(self.classes['V'])
    return Agreement(
        next(i for i, word in enumerate(words) if word in nouns),
        next(i for i, word in enumerate(words) if word in verbs),
    )

  def twin(self, words: Sequence[str]) -> list[str]:
    """The text with one word that makes it ungrammatical, or a sum untrue.

    The verb takes the other number, which has as many phones; a sum the next
    result that has as many phones, or else the next.

    Raises:
      ConfigError: for a language in which nothing can be wrong.
    """
    words = list(words)
    if agreement := self.agreement(words):
      verbs = self.classes['V']
      # Singular and plural stand beside each other.
      words[agreement.verb] = verbs[verbs.index(words[agreement.verb]) ^ 1]
    elif self.name == 'sums':
      right = NUMBERS.index(words[-1])
      others = [NUMBERS[(right + i) % 19] for i in range(1, 19)]
      size = len(self.lexicon[words[-1]])
      alike = [w for w in others if len(self.lexicon[w]) == size]
      words[-1] = (alike or others)[0]
    else:
      raise config.ConfigError(f'no word of {self.name} can be ungrammatical')
    return words

  def distances(self, most: int) -> np.ndarray:
    """[most + 1] the probability that so many words part noun and verb.

    Raises:
      ConfigError: for a language in which nothing agrees.
    """
    if 'V' not in self.classes:
      raise config.ConfigError(f'nothing agrees in {self.name}')
    far = _FAR * self.grammar.lengths('Gap', most)
    far[0] += 1 - _FAR
    return far


_FAR = 0.6


def _uniform(words):
  return [(1 / len(words), (word,)) for word in words]


def _numbered(number):
  """The rules of a clause whose subject and verb have a number."""
  s, n, v = f'S_{number}', f'N_{number}', f'V_{number}'
  return {
      s: [
          (1 - _FAR, (f'Subject_{number}', v, 'Object')),
          (_FAR, (f'Subject_{number}', 'Gap', v, 'Object')),
      ],
      f'Subject_{number}': [(0.6, ('D', n)), (0.4, ('D', 'A', n))],
  }


def _made_up() -> dict[str, list[tuple[str, ...]]]:
  """Class -> stems: consonant, vowel (, consonant), no two alike."""
  rng = np.random.default_rng(1952)
  onsets = 'p b t d k ɡ s z ʃ f v θ h m n w j r l'.split()
  vowels = 'i ɪ ɛ æ ʌ ɑ ɔ u eɪ oʊ'.split()
  codas = 'p t k b d ɡ s z ʃ m n l'.split()
  short = [(a, b) for a in onsets for b in vowels]
  long = [(*each, c) for each in short for c in codas]
  english = {tuple(phones.split()) for phones in _ENGLISH.values()}
  result = {}
  for stems, sizes in (
      (short, {'D': 8, 'P': 8}),
      (long, {'Adv': 16, 'A': 32, 'N': 64, 'V': 64}),
  ):
    stems = [stem for stem in stems if stem not in english]
    order = [stems[i] for i in rng.permutation(len(stems))]
    for name, size in sizes.items():
      result[name], order = order[:size], order[size:]
  return result


def _spelled(stem) -> str:
  return ''.join(_LETTERS.get(phone, phone) for phone in stem)


def _sentences() -> Language:
  rules = {
      'S': [(0.5, ('S_singular',)), (0.5, ('S_plural',))],
      **_numbered('singular'),
      **_numbered('plural'),
      'Gap': [(0.3, ('Adv',)), (0.5, ('PP',)), (0.2, ('PP', 'Adv'))],
      'PP': [(1.0, ('P', 'NP'))],
      'NP': [(0.7, ('D', 'N')), (0.3, ('D', 'N', 'PP'))],
      'N': [(0.5, ('N_singular',)), (0.5, ('N_plural',))],
      'Object': [(0.7, ('D', 'N')), (0.3, ('D', 'A', 'N'))],
  }
  lexicon, classes = {}, {}
  for name, stems in _made_up().items():
    endings = {'N': NOUN_ENDINGS, 'V': VERB_ENDINGS}.get(name)
    if endings is None:
      words = {_spelled(stem): stem for stem in stems}
      rules[name] = _uniform(list(words))
    else:
      words = {}
      for number, ending in endings.items():
        ones = {_spelled((*s, ending)): (*s, ending) for s in stems}
        rules[f'{name}_{number}'] = _uniform(list(ones))
        words |= ones
      words = {
          _spelled((*s, e)): (*s, e) for s in stems for e in endings.values()
      }
    classes[name] = tuple(words)
    lexicon |= words
  return Language('sentences', grammar_lib.Grammar(rules), lexicon, classes)


def _english(name, rules) -> Language:
  grammar = grammar_lib.Grammar(rules)
  lexicon = {word: tuple(_ENGLISH[word].split()) for word in grammar.words}
  return Language(name, grammar, lexicon)


def _digits() -> Language:
  lengths = [(1 / 3, ('D',) * n) for n in (2, 3, 4)]
  return _english('digits', {'S': lengths, 'D': _uniform(NUMBERS[:10])})


def _sums() -> Language:
  texts = [
      (NUMBERS[a], 'plus', NUMBERS[b], 'is', NUMBERS[a + b])
      for a in range(10)
      for b in range(10)
  ] + [
      (NUMBERS[a], 'minus', NUMBERS[b], 'is', NUMBERS[a - b])
      for a in range(19)
      for b in range(max(0, a - 9), min(a, 9) + 1)
  ]
  return _english('sums', {'S': [(1 / len(texts), text) for text in texts]})


def _matrix() -> Language:
  words = list(_ENGLISH)
  start = words.index('peter')
  names, verbs, adjectives, nouns = (
      words[start + 10 * i : start + 10 * (i + 1)] for i in range(4)
  )
  columns = {
      'Name': names,
      'Verb': verbs,
      'Number': NUMBERS[2:12],
      'Adjective': adjectives,
      'Noun': nouns,
  }
  rules = {name: _uniform(column) for name, column in columns.items()}
  return _english('matrix', {'S': [(1.0, tuple(columns))], **rules})


def _syllables() -> Language:
  """Each onset before each vowel, alone; single ones also before another."""
  rng = np.random.default_rng(1960)
  singles = [(), *((p,) for p in 'pbtdkɡszʃfvθðhmnwjrl')]
  clusters = 'pl pr br tr dr kr ɡr fl fr sl sp st sk tw θr'.split()
  ends = 'p b t d k ɡ s z ʃ f v θ ð m n ŋ l ts ks ps dz ɡz nz mz lz'.split()
  ends += 'ŋk ŋz ld lv nt st pt nts sks'.split()
  codas = [*[()] * (len(ends) // 2), *map(tuple, ends)]
  lexicon = {}

  def drawn(choices):
    return choices[int(rng.integers(len(choices)))]

  for onset in [*singles, *map(tuple, clusters)]:
    for vowel in phones_lib.VOWELS:
      first = (*onset, vowel)
      stems = [[(*first, *drawn(codas))]]
      if len(onset) < 2:
        vowels = tuple(phones_lib.VOWELS)
        second = (*drawn(singles[1:]), drawn(vowels))
        simple = codas[: len(codas) // 2]
        stems.append([(*first, *drawn(simple)), (*second, *drawn(codas))])
      for stem in stems:
        lexicon['-'.join(map(_spelled, stem))] = tuple(
            p for x in stem for p in x
        )
  share = 1 / len(_NONSENSE)
  rules = {
      'S': [(share, ('Word',) * n) for n in _NONSENSE],
      'Word': _uniform(list(lexicon)),
  }
  return Language('syllables', grammar_lib.Grammar(rules), lexicon)


_MAKERS = {
    'sentences': _sentences,
    'digits': _digits,
    'sums': _sums,
    'matrix': _matrix,
    'syllables': _syllables,
}
MADE_UP = ('sentences', 'syllables')  # Those whose words are of no language.


@functools.cache
def language(name: str) -> Language:
  """A sub-language by its name in `LANGUAGES`.

  Raises:
    ConfigError: for another name.
  """
  if name not in _MAKERS:
    raise config.ConfigError(f'there is no language {name!r}, but {LANGUAGES}')
  return _MAKERS[name]()
