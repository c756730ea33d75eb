"""Entropies by solve, by inside sums and by sampling agree."""

import math

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data.speech_world import grammar as grammar_lib


def _uniform(prefix, count):
  return [(1 / count, (f'{prefix}{i}',)) for i in range(count)]


CATALAN = {'S': [(0.25, ('S', 'S')), (0.75, ('a',))]}
NESTED = {'S': [(0.3, ('a', 'S', 'b')), (0.7, ('c',))]}
PHRASES = {
    'S': [(1.0, ('NP', 'VP'))],
    'NP': [(0.6, ('D', 'N')), (0.4, ('D', 'N', 'PP'))],
    'PP': [(1.0, ('P', 'NP'))],
    'VP': [(0.7, ('V', 'NP')), (0.3, ('V',))],
    'D': _uniform('d', 2),
    'N': _uniform('n', 8),
    'P': _uniform('p', 4),
    'V': _uniform('v', 4),
}


def test_entropies_and_lengths_in_closed_form():
  """The reference's known answers."""
  catalan = grammar_lib.Grammar(CATALAN)
  assert catalan.entropy() == pytest.approx(1.62256, abs=1e-5)
  assert catalan.mean() == pytest.approx(1.5)
  nested = grammar_lib.Grammar(NESTED)
  h = -0.3 * math.log2(0.3) - 0.7 * math.log2(0.7)
  assert nested.entropy() == pytest.approx(h / 0.7)
  phrases = grammar_lib.Grammar(PHRASES)
  assert phrases.entropy() == pytest.approx(19.2323, abs=1e-4)
  assert phrases.mean() == pytest.approx(7.8)
  nouns = {word: float(word[0] == 'n') for word in phrases.words}
  # One noun a phrase; 1 / (1 - .4) phrases for each of 1 + .7.
  assert phrases.mean(nouns) == pytest.approx(1.7 / 0.6)


def test_samples_have_the_probability_that_they_were_drawn_with():
  phrases = grammar_lib.Grammar(PHRASES)
  rng = np.random.default_rng(0)
  drawn = [phrases.sample(rng) for _ in range(6000)]
  assert -np.mean([p for _, p in drawn]) == pytest.approx(19.2323, abs=0.35)
  assert np.mean([len(w) for w, _ in drawn]) == pytest.approx(7.8, abs=0.15)
  for words, log2p in drawn[:200]:
    assert phrases.log2_probability(words) == pytest.approx(log2p)
    assert phrases.derivations(words) == 1
    if len(words) < 12:
      bits = phrases.word_bits(words)
      assert len(bits) == len(words) + 1
      assert bits.sum() == pytest.approx(-log2p)


def test_an_ambiguous_string_sums_its_derivations():
  catalan = grammar_lib.Grammar(CATALAN)
  # Catalan numbers of binary trees, and their probability.
  for n, trees in ((1, 1), (2, 1), (3, 2), (4, 5), (5, 14)):
    assert catalan.derivations(['a'] * n) == trees
    expected = math.log2(trees * 0.25 ** (n - 1) * 0.75**n)
    assert catalan.log2_probability(['a'] * n) == pytest.approx(expected)
  # The entropy of strings, over lengths that matter.
  probabilities = [
      2 ** catalan.log2_probability(['a'] * n) for n in range(1, 30)
  ]
  strings = -sum(p * math.log2(p) for p in probabilities)
  assert strings == pytest.approx(1.30398, abs=1e-3)
  with pytest.raises(config.ConfigError, match="'S' leads back"):
    catalan.word_bits(['a'])


def test_a_word_may_stand_in_many_rules_alone():
  # It leads nowhere, so not back to itself.
  rules = {
      'S': [(0.5, ('T',)), (0.5, ('a',))],
      'T': [(0.5, ('a',)), (0.5, ('b',))],
  }
  twice = grammar_lib.Grammar(rules)
  assert twice.log2_probability(['a']) == pytest.approx(math.log2(0.75))
  assert twice.derivations(['a']) == 2
  np.testing.assert_allclose(
      twice.word_bits(['a']), [-math.log2(0.75), 0], atol=1e-12
  )


def test_word_bits_by_hand():
  nested = grammar_lib.Grammar(NESTED)
  bits = nested.word_bits(['a', 'c', 'b'])
  np.testing.assert_allclose(
      bits, [-math.log2(0.3), -math.log2(0.7), 0, 0], atol=1e-12
  )
  assert math.isinf(nested.word_bits(['a', 'b'])[1])
  assert nested.log2_probability(['a', 'c']) == -math.inf
  assert nested.derivations(['a', 'c']) == 0


def test_lengths_sum_to_one_and_have_the_mean():
  for rules in (CATALAN, NESTED, PHRASES):
    grammar = grammar_lib.Grammar(rules)
    lengths = grammar.lengths('S', 60)
    assert lengths.sum() == pytest.approx(1, abs=1e-3)
    assert lengths @ np.arange(61) == pytest.approx(grammar.mean(), abs=0.02)
  nested = grammar_lib.Grammar(NESTED).lengths('S', 5)
  np.testing.assert_allclose(nested, [0, 0.7, 0, 0.21, 0, 0.063])


@pytest.mark.parametrize(
    'rules, message',
    [
        ({'S': [(0.5, ('a',))]}, 'sum 1'),
        ({'S': [(1.0, ())]}, 'empty'),
        ({'T': [(1.0, ('a',))]}, 'no rule'),
        ({'S': [(0.6, ('S', 'S')), (0.4, ('a',))]}, 'do not end'),
        (
            {'S': [(0.5, ('T',)), (0.5, ('a',))], 'T': [(1.0, ('S',))]},
            'leads back',
        ),
    ],
)
def test_what_is_no_grammar_is_refused(rules, message):
  with pytest.raises(config.ConfigError, match=message):
    grammar_lib.Grammar(rules)
