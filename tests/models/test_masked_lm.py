"""A masked model as people use it."""

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.generation import unmask
from audiolm_jax.models import kinds
from audiolm_jax.models import loading
from audiolm_jax.models import masked_lm
from audiolm_jax.processes import unmasking
from tests.decoders import small
from tests.models import small_directories

V, K = 4, 2
PLAN = unmask.Plan(unmasking.RandomOrder(), 3)


@pytest.fixture(scope='module')
def lm():
  backbone = small.stack(
      layers=2, scan=True, mixer={'mask_kind': 'bidirectional'}
  )
  decoder = decoders.Masked((V,) * K, backbone)
  batch = decoder.example_batch(1, {'frames': 3})
  params = small.parameters(decoder, *decoder.read(batch))
  return masked_lm.MaskedLM(decoder, params, 2.0)


def codes(rows=3, frames=5, seed=0):
  return np.random.default_rng(seed).integers(0, V, (rows, frames, K))


def test_bits_are_means_of_scores_and_their_error_is_that_of_the_draws(lm):
  given, lengths = codes(), np.array([5, 2, 0])
  found = lm.bits_per_frame(given, lengths, draws=64)
  scores = lm.score(given, lengths, draws=64)
  nats = -np.asarray(scores['frames'].log_prob, np.float64).sum((1, 2))
  np.testing.assert_allclose(
      found.bits[:2], nats[:2] / np.log(2) / lengths[:2], rtol=1e-5
  )
  assert np.isnan(found.bits[2]) and np.isnan(found.error[2])
  assert scores.tag == 'bound'
  # Of many estimates, the spread is no more than the error says.
  many = [
      lm.bits_per_frame(given, lengths, draws=64, seed=s) for s in range(30)
  ]
  bits = np.array([m.bits[:2] for m in many])
  errors = np.array([m.error[:2] for m in many]).mean(0)
  assert (bits.std(0) < 1.3 * errors).all()
  assert (bits.std(0) > 0.05 * errors).all()
  assert np.isnan(lm.bits_per_frame(given, lengths, draws=1).error).all()


def test_more_steps_are_what_they_are_for(lm):
  """In one step all places are drawn at once: exact whatever is drawn."""
  given = codes(1)
  one = lm.bits_per_frame(given, steps=1, draws=2)
  logits = lm.decoder.apply(
      {'params': lm.params},
      given,
      given >= 0,
      np.array([5]),
      np.array([0]),
      method='logits',
  )
  log_prob = np.asarray(jax.nn.log_softmax(logits))
  expected = -np.take_along_axis(log_prob, given[..., None], -1).sum()
  np.testing.assert_allclose(one.bits, expected / np.log(2) / 5, rtol=1e-5)
  np.testing.assert_allclose(one.error, 0, atol=1e-5)
  cosine = lm.bits_per_frame(given, steps=4, schedule='cosine', draws=256)
  linear = lm.bits_per_frame(given, steps=4, draws=256)
  assert cosine.bits != linear.bits


def test_prompts_are_continued_and_gaps_filled(lm):
  given, lengths = codes(), np.array([5, 2, 0])
  result = lm.generate(given, 7, num_frames=lengths, plans=[PLAN])
  assert result.shape == (3, 7, K)
  for row, n in enumerate(lengths):
    np.testing.assert_array_equal(result[row, :n], given[row, :n])
  known = np.zeros_like(given, bool)
  known[:, :5] = np.arange(5)[:, None] < lengths[:, None, None]
  padded = np.pad(given, ((0, 0), (0, 2), (0, 0)))
  same = lm.infill(
      padded, np.pad(known, ((0, 0), (0, 2), (0, 0))), plans=[PLAN]
  )
  np.testing.assert_array_equal(result, same)
  gap = np.ones_like(given, bool)
  gap[:, 1:3] = False
  filled = lm.infill(given, gap, plans=[PLAN])
  np.testing.assert_array_equal(filled[gap], given[gap])
  assert (filled != lm.infill(given, gap, plans=[PLAN], seed=3)).any()


def test_flops_are_those_of_the_passes(lm):
  one = lm.generation_flops(3, plans=[unmask.Plan(steps=1)])
  # Six frames, 2 FLOPs a weight, and scores and values of attention.
  weights = sum(
      w.size
      for path, w in jax.tree_util.tree_leaves_with_path(lm.params)
      if path[0].key in ('backbone', 'head') and path[-1].key != 'scale'
  )
  assert one == 6 * 2 * weights + 2 * 4 * 6 * 6 * 8
  assert lm.generation_flops(3, plans=[unmask.Plan(steps=5)]) == 5 * one
  assert lm.generation_flops(0, plans=[PLAN]) == 0
  with pytest.raises(ValueError, match='conditions'):
    lm.generation_flops(3, guided=True)


def test_it_is_of_a_kind_and_comes_back_from_its_directory(lm, tmp_path):
  description = kinds.Description(lm.decoder, 2.0)
  assert description.kind == 'masked'
  variables = {'params': lm.params, 'state': {}}
  small_directories.write(
      tmp_path / 'model', 'masked', lm.decoder, variables, rate=2.0
  )
  loaded = loading.load(tmp_path / 'model')
  assert isinstance(loaded, masked_lm.MaskedLM)
  given = codes()
  np.testing.assert_array_equal(
      loaded.generate(given, 6, plans=[PLAN]),
      lm.generate(given, 6, plans=[PLAN]),
  )
  np.testing.assert_array_equal(
      loaded.bits_per_frame(given).bits, lm.bits_per_frame(given).bits
  )


def test_what_does_not_fit_is_refused(lm):
  given = codes()
  with pytest.raises(ValueError, match='draws = 0'):
    lm.score(given, draws=0)
  with pytest.raises(ValueError, match='steps = 0'):
    lm.bits_per_frame(given, steps=0)
  with pytest.raises(ValueError, match='without steps'):
    lm.bits_per_frame(given, schedule='cosine')
  with pytest.raises(ValueError, match='frames = 3'):
    lm.generate(given, 3)
  with pytest.raises(ValueError, match='booleans'):
    lm.infill(given, np.ones(given.shape))
  with pytest.raises(ValueError, match='codes'):
    lm.score(given + V)
  with pytest.raises(ValueError, match='mask'):
    lm.infill(given, np.ones(given.shape, bool)[:, :2])
