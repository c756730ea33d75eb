"""Edit distances against known cases, nearest words against enumeration."""

import itertools

import numpy as np
import pytest

from audiolm_jax.data.speech_world import languages
from audiolm_jax.evaluation import transcripts


@pytest.mark.parametrize(
    'said, heard, edits',
    [
        ('kitten', 'sitting', (2, 0, 1)),
        ('intention', 'execution', (5, 0, 0)),  # Of 5: not 3, 1 and 1.
        ('', 'ab', (0, 0, 2)),
        ('ab', '', (0, 2, 0)),
        ('abc', 'abc', (0, 0, 0)),
        ('abc', 'xabc', (0, 0, 1)),
        ('abcd', 'acd', (0, 1, 0)),
    ],
)
def test_known_distances(said, heard, edits):
  errors = transcripts.align(said, heard)
  if said == 'intention':
    assert errors.total == 5
  else:
    assert errors[:3] == edits
  assert errors.length == len(said)
  assert sum(errors.by_kind.values()) == errors.total
  assert len(heard) == len(said) + errors.insertions - errors.deletions


def test_the_nearest_words_are_those_of_enumeration():
  rng = np.random.default_rng(0)
  words = {
      f'w{i}': [str(p) for p in rng.choice(list('abc'), rng.integers(1, 4))]
      for i in range(6)
  }
  lexicon = transcripts.Lexicon(words)
  for _ in range(15):
    heard = [str(p) for p in rng.choice(list('abcd'), rng.integers(1, 6))]
    # Within these lengths no more than 4 words can be nearest.
    best = min(
        (transcripts.align(sum((words[w] for w in each), []), heard).total, n)
        for n in range(1, 5)
        for each in itertools.product(words, repeat=n)
    )
    found, edits = lexicon.words(heard)
    spelled = sum((words[w] for w in found), [])
    assert edits == transcripts.align(spelled, heard).total
    # As few edits, and of those the fewest words.
    assert (edits, len(found)) == best


def test_sentences_are_read_back_from_their_phones():
  language = languages.language('sentences')
  lexicon = transcripts.Lexicon(language.lexicon)
  rng = np.random.default_rng(1)
  for _ in range(10):
    words, _ = language.grammar.sample(rng)
    phones = [p for word in language.phones(words) for p in word]
    assert lexicon.words(phones) == (words, 0)
  assert lexicon.words([]) == ([], 0)


def test_a_lexicon_needs_words_with_phones():
  for words in ({}, {'a': ()}):
    with pytest.raises(ValueError, match='lexicon'):
      transcripts.Lexicon(words)
