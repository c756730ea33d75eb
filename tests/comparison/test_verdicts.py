"""Each reading in words, and that a failed control silences nulls."""

import numpy as np

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import multiplicity
from audiolm_jax.comparison import verdicts

NOISE = 0.01 * np.random.default_rng(0).standard_normal((5, 3))
MEANS = {'base': 0.0, 'same': 0.0, 'near': 0.1, 'far': 1.0, 'half': 0.5}


def compare(*contrasts, noise=NOISE):
  values = {
      arm: dict(enumerate(mean + noise[i]))
      for i, (arm, mean) in enumerate(MEANS.items())
  }
  return blocks.compare(values, contrasts)


def test_each_reading_in_words():
  results = compare(
      blocks.Contrast('far', 'base', margin=0.2),
      blocks.Contrast('near', 'base', margin=0.2, null='the rung is idle'),
      blocks.Contrast('same', 'base', margin=0.001),
      blocks.Contrast('half', 'base', sided=multiplicity.LOWER),
  )
  far, near, same, half = verdicts.verdicts(results, 'bits', 1)
  assert far == 'higher by 1.0 bits'
  assert near == (
      'equal within 0.2 bits (higher by 0.1, which is less): the rung is idle'
  )
  assert same.startswith(
      'undecided: neither different nor equal within 0.001 bits (differences'
      ' under 0.'
  )
  assert half.startswith(
      'no claim: only that it is lower could have been shown'
  )


def test_without_a_margin_it_is_as_before_and_the_null_is_read():
  plain, read = compare(
      blocks.Contrast('same', 'base'),
      blocks.Contrast('base', 'near', null='depth is not needed'),
  )
  assert verdicts.verdict(plain).startswith('no difference found (differences')
  assert verdicts.verdict(read).startswith('lower by 0.')
  (null,) = compare(blocks.Contrast('same', 'base', null='not needed'))
  assert verdicts.verdict(null).endswith('mostly be missed): not needed')


def test_what_is_undecided_is_not_read_as_the_null():
  results = compare(
      blocks.Contrast('same', 'base', margin=0.001, null='idle'),
      blocks.Contrast('half', 'base', sided=multiplicity.LOWER, null='idle'),
  )
  for each in results:
    assert verdicts.verdict(each).endswith('mostly be missed)')


def test_a_failed_control_makes_nulls_insensitive_and_leaves_differences():
  claims = [
      blocks.Contrast('far', 'base'),
      blocks.Contrast('same', 'base', margin=0.5, null='idle'),
  ]
  good = blocks.Contrast('half', 'base', expected=multiplicity.HIGHER)
  wrong = blocks.Contrast('half', 'base', expected=multiplicity.LOWER)
  far, same, control = verdicts.verdicts(compare(*claims, good))
  assert control.startswith('positive control found: higher by 0.4')
  assert same == 'equal within 0.5: idle'
  again, silenced, control = verdicts.verdicts(compare(*claims, wrong))
  assert again == far
  assert control.startswith('positive control NOT found')
  assert silenced.startswith('insensitive: a positive control was not')
  assert 'idle' not in silenced and 'would mostly be missed' in silenced


def test_one_seed_says_so_even_of_a_control():
  values = {'a': {0: 1.0}, 'b': {0: 2.0}}
  control = blocks.Contrast('a', 'b', expected=multiplicity.LOWER)
  (text,) = verdicts.verdicts(blocks.compare(values, [control]))
  assert text == 'one seed: no claim'
