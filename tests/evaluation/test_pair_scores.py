"""Log-probabilities of rows of any length, and what prefers them."""

import dataclasses
import types

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax.evaluation import pair_scores
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small

V = 6


@pytest.fixture(scope='module')
def model():
  objective = objectives.NLL(
      decoder=decoders.Decoder(
          vocabularies=(V, V), pattern=patterns.Delay(), backbone=small.stack()
      ),
      rate=50.0,
  )
  init = jax.jit(
      objective.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  return objective.bind(nn.meta.unbox(init(jax.random.key(0))))


def _rows(*lengths):
  rng = np.random.default_rng(0)
  return [rng.integers(V, size=(n, 2), dtype=np.int32) for n in lengths]


def test_rows_of_any_length_have_the_probability_they_have_alone(model):
  rows = _rows(5, 33, 1, 40, 7, 5)
  found = pair_scores.log2_probabilities(model, rows, 3)
  means = pair_scores.log2_probabilities(model, rows, 4, 'mean')
  padded = np.zeros((1, 40, 2), np.int32)
  for row, total, mean in zip(rows, found, means, strict=True):
    padded[0, : len(row)] = row
    # The model's own bits, by another path: a frame's mean of one row.
    bits = model.bits_per_frame(padded, np.array([len(row)]))[0]
    assert mean == pytest.approx(-bits, rel=1e-5)
    assert total == pytest.approx(-bits * len(row), rel=1e-5)
  # A uniform model would need this much.
  assert np.all(-means > 0) and np.all(-means < 4 * np.log2(V))
  assert pair_scores.log2_probabilities(model, []).shape == (0,)


def test_equal_rows_tie_whatever_stands_beside_them(model):
  rows = _rows(5, 6, 7, 8, 9)
  rows += [rows[0].copy(), rows[4].astype(np.int64)]
  for batch in (1, 2, 3):
    found = pair_scores.log2_probabilities(model, rows, batch)
    assert found[0] == found[5] and found[4] == found[6]
    assert len(set(found)) == 5


def test_a_first_frame_that_is_given_is_no_frame_of_the_mean(model):
  decoder = model.decoder.clone(
      pattern=patterns.Parallel(), start=decoders.STARTS['given']()
  )
  (row,) = _rows(9)
  params = small.parameters(decoder, row[None], np.array([9]))
  given = dataclasses.replace(model, decoder=decoder, params=params)
  total, mean = (
      pair_scores.log2_probabilities(given, [row], 1, how)[0]
      for how in ('sum', 'mean')
  )
  assert total == pytest.approx(8 * mean) and total < 0
  with pytest.raises(ValueError, match='no frame that is scored'):
    pair_scores.log2_probabilities(given, [row[:1]], 1, 'mean')


def test_the_likelier_half_is_preferred_and_ties_count_half():
  likelihoods = {'a': -1.0, 'b': -3.0, 'c': -2.0, 'd': -np.inf, 'e': 0.0}
  calls = []

  def score(halves):
    calls.append(halves)
    return [likelihoods[half] for half in halves]

  found = pair_scores.preferences('12345', 'abcde', 'cccda', score)
  assert found.tolist() == [1, 0, 0.5, 0.5, 1]
  assert calls == [[*'abcdecccda']]
  likelihoods['b'] = np.nan
  with pytest.raises(ValueError, match='halves of 2 .* nan and -2.0'):
    pair_scores.preferences('12345', 'abcde', 'cccda', score)


def test_what_has_no_likelihood_to_compare_is_refused(model):
  pair_scores.check(model.decoder)
  given = sequence_lib.Segment('coarse', (0,), role='observe')
  stage = decoders.Staged(
      vocabularies=(4, 4),
      sequence=sequence_lib.Sequence(
          (given, sequence_lib.Segment('fine', (1,)))
      ),
  )
  for module in (stage, objectives.Toy()):
    with pytest.raises(config.ConfigError, match='not model whole frames'):
      pair_scores.check(module)
  bound = types.SimpleNamespace(
      streams={'frames': 0}, predicted=(0,), vocabularies=(4,), tag='bound'
  )
  with pytest.raises(config.ConfigError, match='bound, and a difference'):
    pair_scores.check(bound)
  with pytest.raises(ValueError, match='row 1 of 2 has no frame'):
    pair_scores.log2_probabilities(model, _rows(3, 0))
