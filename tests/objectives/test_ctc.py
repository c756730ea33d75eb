"""CTC: the sum over all alignments, padding, rows without an alignment."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import objectives
from audiolm_jax.models import front_ends
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.objectives import ctc


def _by_enumeration(logits, labels):
  """-log of the sum over all outputs of the frames that spell the labels."""
  p = np.exp(logits - logits.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  total = 0.0
  for path in itertools.product(range(p.shape[1]), repeat=len(p)):
    merged = [k for k, _ in itertools.groupby(path) if k]
    if merged == list(labels):
      total += math.prod(p[t, k] for t, k in enumerate(path))
  return -math.log(total)


@pytest.mark.parametrize('labels', [[], [1], [1, 2], [2, 2], [1, 2, 1]])
def test_it_is_the_sum_over_all_alignments(labels):
  logits = np.random.default_rng(0).standard_normal((5, 3))
  padded = np.full((1, 7, 3), np.nan, np.float32)
  padded[0, :5] = logits
  given = np.full((1, 4), 2, np.int32)  # Past the end anything may stand.
  given[0, : len(labels)] = labels
  nats, possible = ctc.nats_of_rows(
      jnp.asarray(padded), jnp.array([5]), given, jnp.array([len(labels)])
  )
  assert possible[0]
  expected = _by_enumeration(logits, labels)
  assert float(nats[0]) == pytest.approx(expected, rel=1e-4)


def test_rows_without_an_alignment_count_for_nothing():
  logits = np.random.default_rng(1).standard_normal((3, 3, 3))
  labels = np.array([[1, 1, 0], [1, 2, 1], [1, 1, 2]], np.int32)
  lengths = np.array([3, 3, 3])
  counts = np.array([2, 3, 3])  # They need 3, 3 and 4 frames.

  def loss(x):
    nats, possible = ctc.nats_of_rows(x, lengths, labels, counts)
    return jnp.sum(nats), possible

  gradient, possible = jax.grad(loss, has_aux=True)(jnp.float32(logits))
  assert possible.tolist() == [True, True, False]
  assert jnp.isfinite(gradient).all() and not gradient[2].any()
  assert gradient[0].any() and gradient[1].any()


def test_rows_add_and_padding_changes_nothing():
  objective = objectives.CTC(
      recogniser=recogniser_lib.Recogniser(
          symbols=('a', 'b'),
          front_end=front_ends.LogMel(bands=20),
          width=16,
          blocks=1,
          dropout=0.0,
      )
  )
  variables = objective.init(jax.random.key(0))
  call = jax.jit(objective)
  audio = np.random.default_rng(2).standard_normal((2, 6000, 1))
  batch = {
      'audio': (0.1 * audio).astype(np.float32),
      'num_samples': np.array([6000, 3000], np.int32),
      'labels': np.array([[1, 2, 2], [1, 0, 0]], np.int32),
      'num_labels': np.array([3, 1], np.int32),
      'id': np.zeros(2, np.int32),
  }
  key = jax.random.key(1)
  nats, count = call(variables, batch, key).terms['ctc']
  assert count == 4 and objective.audio_seconds(batch) == 9000 / 16000
  batch['audio'][1, 3000:] = np.nan
  wider = {
      **batch,
      'audio': np.pad(batch['audio'], ((0, 0), (0, 500), (0, 0))),
      'labels': np.pad(batch['labels'], ((0, 0), (0, 2))),
  }
  np.testing.assert_allclose(
      call(variables, wider, key).terms['ctc'][0], nats, rtol=1e-4
  )
  # A row of which no frame is left has no alignment.
  batch['num_samples'][1] = 0
  output = call(variables, batch, key)
  assert output.terms['ctc'][1] == 3
  assert output.metrics['impossible'] == (1, 2)
