"""Sub-languages: entropies, agreement, twins, words."""

import math

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib


@pytest.mark.parametrize('name', languages.LANGUAGES)
def test_texts_have_one_derivation_and_a_known_entropy(name):
  language = languages.language(name)
  rng = np.random.default_rng(0)
  drawn = [language.grammar.sample(rng) for _ in range(2000)]
  for words, log2p in drawn[:40]:
    assert language.grammar.derivations(words) == 1
    assert language.grammar.log2_probability(words) == pytest.approx(log2p)
  bits = language.grammar.entropy()
  assert -np.mean([p for _, p in drawn]) == pytest.approx(bits, rel=0.02)
  count = np.mean([sum(map(len, language.phones(w))) for w, _ in drawn])
  assert count == pytest.approx(language.mean_phones(), rel=0.02)
  assert {p for w in language.lexicon.values() for p in w} <= set(
      phones_lib.PHONES
  )
  # What is heard says what is written.
  assert len(set(language.lexicon.values())) == len(language.lexicon)
  assert set(language.lexicon) == set(language.grammar.words)


def test_entropies_of_the_small_languages():
  digits = languages.language('digits').grammar
  assert digits.entropy() == pytest.approx(math.log2(3) + 3 * math.log2(10))
  assert languages.language('matrix').grammar.entropy() == pytest.approx(
      5 * math.log2(10)
  )
  assert languages.language('sums').grammar.entropy() == pytest.approx(
      math.log2(200)
  )
  assert languages.language('sentences').bits_a_phone() >= 1.5


def test_sums_are_true_and_their_twins_are_not():
  sums = languages.language('sums')
  value = {word: i for i, word in enumerate(languages.NUMBERS)}
  rng = np.random.default_rng(1)
  for _ in range(100):
    words, _ = sums.grammar.sample(rng)
    for text, right in ((words, True), (sums.twin(words), False)):
      a, operator, b, _, c = text
      sign = {'plus': 1, 'minus': -1}[operator]
      assert (value[a] + sign * value[b] == value[c]) == right
      assert math.isinf(sums.grammar.log2_probability(text)) != right


def test_a_twin_differs_in_the_verb_alone_and_lasts_as_long():
  language = languages.language('sentences')
  rng = np.random.default_rng(2)
  seen = []
  for _ in range(300):
    words, _ = language.grammar.sample(rng)
    agreement = language.agreement(words)
    seen.append(agreement.distance)
    twin = language.twin(words)
    differ = [
        i for i, (a, b) in enumerate(zip(words, twin, strict=True)) if a != b
    ]
    assert differ == [agreement.verb]
    assert language.twin(twin) == words
    a, b = language.phones(words), language.phones(twin)
    assert phones_lib.durations(a) == phones_lib.durations(b)
    # The noun's ending says which verb is right.
    number = list(languages.NOUN_ENDINGS.values()).index(a[agreement.noun][-1])
    endings = list(languages.VERB_ENDINGS.values())
    assert a[agreement.verb][-1] == endings[number]
    assert b[agreement.verb][-1] == endings[1 - number]
    assert language.grammar.derivations(twin) == 0
  probabilities = language.distances(40)
  assert probabilities.sum() == pytest.approx(1, abs=1e-4)
  for d in (0, 1, 3, 4):
    share = np.mean([each == d for each in seen])
    assert share == pytest.approx(probabilities[d], abs=0.08)
  assert probabilities[2] == 0


def test_the_number_of_the_verb_costs_nothing():
  """Given the words before, its bits are those of its stem and of the gap."""
  language = languages.language('sentences')
  rng = np.random.default_rng(3)
  for _ in range(20):
    words, _ = language.grammar.sample(rng)
    at = language.agreement(words)
    bits = language.grammar.word_bits(words)
    # Never a bit for number; some for how long the gap is.
    stem = math.log2(64)
    if at.distance == 0:
      assert bits[at.verb] == pytest.approx(stem - math.log2(0.4))
    elif language.classes['Adv'].count(words[at.verb - 1]):
      assert bits[at.verb] == pytest.approx(stem)
    else:
      # The noun ends the phrase (.7), which no adverb follows (.5 of .7).
      expected = stem - math.log2(0.7 * 0.5 / 0.7)
      assert bits[at.verb] == pytest.approx(expected)


def test_what_no_language_has_is_refused():
  with pytest.raises(config.ConfigError, match='zzz'):
    languages.language('digits').phones(['one', 'zzz'])
  with pytest.raises(config.ConfigError, match='no word of digits'):
    languages.language('digits').twin(['one', 'two'])
  with pytest.raises(config.ConfigError, match='nothing agrees'):
    languages.language('digits').distances(3)
  with pytest.raises(config.ConfigError, match="'klingon'"):
    languages.language('klingon')


def test_durations_follow_the_rules():
  (once,), (slow,) = (
      phones_lib.durations([('b', 'æ', 't')], rate) for rate in (1.0, 0.5)
  )
  # .7 before a voiceless stop, 1.4 at the end of a clause.
  assert once[1] == round(80 / 10 + 15 * 0.7 * 1.4)
  assert slow[1] == round(2 * (80 / 10 + 15 * 0.7 * 1.4))
  ((_, before_d, _),) = phones_lib.durations([('b', 'æ', 'd')])
  assert before_d == round(8 + 15 * 1.2 * 1.4)
  first, last = phones_lib.durations([('b', 'æ', 'd')] * 2)
  assert first[1] == round(8 + 15 * 1.2) and last[1] == before_d
  ((*_, unstressed),) = phones_lib.durations([('t', 'ɑ', 'm', 'i')])
  assert unstressed == round(2.75 + (15.5 - 2.75) * 0.8 * 0.7 * 1.4)
  with pytest.raises(KeyError, match='x'):
    phones_lib.durations([('x',)])
