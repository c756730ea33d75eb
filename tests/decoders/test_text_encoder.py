"""T5's encoder: padding, distances, and adapters on every weight."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax.decoders import text_encoder
from audiolm_jax.streaming import testing

_LENGTHS = np.array([7, 3])


@pytest.fixture(scope='module', name='case')
def _case():
  """(jitted states(params, ids, mask), params, ids)."""
  module = text_encoder.T5Encoder(
      vocabulary=20,
      width=8,
      layers=2,
      heads=2,
      head_width=5,
      hidden=12,
      buckets=8,
      max_distance=6,
  )
  ids = np.random.default_rng(0).integers(0, 20, (2, 7))
  quick = testing.quick_options()
  init = jax.jit(module.init, compiler_options=quick)
  params = init(jax.random.key(0), ids, ids >= 0)['params']
  run = jax.jit(
      lambda p, ids, mask: module.apply({'params': p}, ids, mask),
      compiler_options=quick,
  )
  return run, nn.meta.unbox(params), ids


def test_padding_changes_nothing(case):
  run, params, ids = case
  mask = np.arange(7) < _LENGTHS[:, None]
  found = np.asarray(run(params, ids, mask))
  other = np.asarray(run(params, np.where(mask, ids, 10**6), mask))
  np.testing.assert_array_equal(found[mask], other[mask])
  short = run(params, ids[1:, :3], mask[1:, :3])
  np.testing.assert_allclose(found[1, :3], short[0], rtol=1e-5, atol=1e-5)


def test_order_matters_only_through_the_offsets(case):
  run, params, ids = case
  mask = np.ones(ids.shape, bool)
  turned = ids[:, ::-1]
  with_order = np.asarray(run(params, turned, mask))[:, ::-1]
  reference = np.asarray(run(params, ids, mask))
  assert np.abs(with_order - reference).max() > 1e-2
  flat = {**params, 'offsets': np.zeros_like(params['offsets'])}
  np.testing.assert_allclose(
      np.asarray(run(flat, turned, mask))[:, ::-1],
      run(flat, ids, mask),
      rtol=1e-4,
      atol=1e-5,
  )


def test_distances_share_offsets():
  distances = np.arange(-20, 21)
  found = text_encoder.buckets(distances, 16, 12)
  behind, after = found[:20][::-1], found[21:]
  np.testing.assert_array_equal(after, behind + 8)
  np.testing.assert_array_equal(behind[:3], [1, 2, 3])
  assert found[20] == 0
  assert (np.diff(behind) >= 0).all() and (np.diff(behind) <= 1).all()
  assert (behind[11:] == 7).all()


def test_a_low_rank_update_of_every_weight(case):
  run, params, ids = case
  rng = np.random.default_rng(0)

  def adapt(w):
    if w.ndim < 2:
      return w
    a, b = (
        0.3 * rng.normal(size=s).astype(np.float32)
        for s in ((w.shape[0], 2), (2, w.shape[1]))
    )
    return ops.LoraTensor(w, a, b, 0.5)

  adapted = jax.tree.map(adapt, params)
  merged = ops.map_weights(ops.materialize, adapted)
  mask = np.arange(7) < _LENGTHS[:, None]
  found, expected = (
      np.asarray(run(p, ids, mask))[mask] for p in (adapted, merged)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert np.abs(found - np.asarray(run(params, ids, mask))[mask]).max() > 0.1
