"""The count models are distributions, beat chance, and find what is there."""

import numpy as np
import pytest

from audiolm_jax.evaluation import baselines

V = 6


def _markov(seed, frames, stay=0.9):
  """Slot 0 mostly steps to the next code; slot 1 is independent, skewed."""
  rng = np.random.default_rng(seed)
  codes = np.zeros((frames, 2), np.int32)
  for f in range(1, frames):
    turn = rng.random() < stay
    codes[f, 0] = (codes[f - 1, 0] + 1) % V if turn else rng.integers(V)
  codes[:, 1] = rng.choice(V, frames, p=[0.5, 0.3, 0.1, 0.05, 0.05, 0])
  return codes


@pytest.fixture(scope='module')
def model():
  return baselines.fit(
      [_markov(s, 300) for s in range(8)], [_markov(9, 400)], (V, V)
  )


def test_every_conditional_distribution_sums_to_one(model):
  for before in range(V):
    total = {'unigram': 0.0, 'bigram': 0.0}
    for code in range(V):
      clip = np.array([[before, 0], [code, 0]])
      for name, bits in model.bits(clip).items():
        total[name] += 2.0 ** -bits[1, 0]
    assert total == pytest.approx({'unigram': 1.0, 'bigram': 1.0})


def test_bits_are_those_of_the_source(model):
  bits = {k: v.mean(axis=0) for k, v in model.bits(_markov(20, 4000)).items()}
  assert bits['unigram'][0] == pytest.approx(np.log2(V), abs=0.02)
  p = 0.9 + 0.1 / V
  entropy = -p * np.log2(p) - (1 - p) * np.log2(0.1 / V)
  assert bits['bigram'][0] == pytest.approx(entropy, abs=0.05)
  q = np.array([0.5, 0.3, 0.1, 0.05, 0.05])
  assert bits['unigram'][1] == pytest.approx(-(q @ np.log2(q)), abs=0.05)
  # Where the past says nothing, tuning leaves the bigram near the unigram.
  assert bits['bigram'][1] == pytest.approx(bits['unigram'][1], abs=0.02)


def test_the_first_frame_is_scored_by_the_unigram(model):
  bits = model.bits(np.array([[3, 1]]))
  np.testing.assert_array_equal(bits['unigram'], bits['bigram'])
  assert bits['unigram'].shape == (1, 2)


def test_unseen_codes_cost_finite_bits(model):
  clip = np.full((4, 2), 5)
  assert np.isfinite(model.bits(clip)['bigram']).all()


def test_nothing_to_count_is_refused():
  empty = [np.zeros((0, 1), np.int32)]
  with pytest.raises(ValueError, match='no validation frames'):
    baselines.fit([np.zeros((3, 1), np.int32)], empty, (V,))
