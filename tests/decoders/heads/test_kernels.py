"""Classifiers: every way of applying them is the same product."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax.decoders.heads import kernels as kernels_lib
from tests.decoders import small

B, N, K, D, V = 2, 5, 3, 4, 6


def _kernels(vocabularies=(V,) * K):
  rng = np.random.default_rng(0)
  stacked = rng.normal(size=(K, D, V)).astype(np.float32)
  parts = {k: stacked[k, :, :size] for k, size in enumerate(vocabularies)}
  whole = stacked if set(vocabularies) == {V} else None
  return kernels_lib.Kernels(vocabularies, parts, whole)


def _wanted(kernels, h, codes, slots):
  """Place by place, in float64."""
  found = np.zeros(codes.shape)
  for b, n, g in np.ndindex(codes.shape):
    x = np.asarray(h[b, n] if h.ndim == 3 else h[b, n, g], np.float64)
    logits = x @ kernels.parts[slots[n, g]]
    logits -= np.log(np.exp(logits).sum())
    found[b, n, g] = logits[codes[b, n, g]]
  return found


@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('vocabularies', [(V,) * K, (2, V, 3)])
@pytest.mark.parametrize(
    'slots',
    [
        np.tile([0, 1, 2], (N, 1)),
        np.tile([2, 0, 1], (N, 1)),
        np.arange(N)[:, None] % 3,
        np.array([[0, 2], [1, 1], [2, 0], [0, 0], [1, 2]]),
    ],
    ids=['in order', 'permuted', 'in turns', 'any'],
)
def test_log_prob_meets_each_place_with_its_slot(slots, vocabularies, own):
  kernels = _kernels(vocabularies)
  rng = np.random.default_rng(1)
  group = slots.shape[1]
  shape = (B, N, group, D) if own else (B, N, D)
  h = rng.normal(size=shape).astype(np.float32)
  codes = rng.integers(0, 99, (B, N, group)) % np.array(vocabularies)[slots]
  found = small.quick_jit(lambda h, codes: kernels.log_prob(h, codes, slots))(
      h, codes
  )
  np.testing.assert_allclose(
      found, _wanted(kernels, h, codes, slots), rtol=1e-4, atol=1e-5
  )
  logits = small.quick_jit(lambda h: kernels.logits(h, slots))(h)
  assert logits.dtype == np.float32
  for b, n, g in np.ndindex(codes.shape):
    slot = slots[n, g]
    wanted = (h[b, n, g] if own else h[b, n]) @ kernels.parts[slot]
    size = vocabularies[slot]
    np.testing.assert_allclose(
        logits[b, n, g, :size], wanted, rtol=1e-4, atol=1e-5
    )
    assert np.isneginf(logits[b, n, g, size:]).all()


def test_at_picks_each_rows_slot_and_pads_with_no_probability():
  kernels = _kernels((2, V, 3))
  h = np.random.default_rng(2).normal(size=(4, D)).astype(np.float32)
  slots = np.array([0, 2, 2, 0])
  found = np.asarray(kernels.at(h, slots, (0, 2)))
  assert found.shape == (4, V)
  for row, slot in enumerate(slots):
    size = (2, V, 3)[slot]
    np.testing.assert_allclose(
        found[row, :size], h[row] @ kernels.parts[slot], rtol=1e-5
    )
    assert np.isneginf(found[row, size:]).all()


@pytest.mark.parametrize('kind', ['plain', 'lora', 'packed', 'int8'])
def test_tied_classifiers_are_rows_of_the_table(kind):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(5 + 2, D)).astype(np.float32)
  if kind == 'lora':
    a, b = rng.normal(size=(7, 2)), rng.normal(size=(2, D))
    table = ops.LoraTensor(table, a.astype(np.float32), b.astype(np.float32))
  elif kind == 'packed':
    table = ops.pack(jnp.asarray(table))
  elif kind == 'int8':
    table = ops.quantize(jnp.asarray(table))
  dense = np.asarray(ops.materialize(table))
  kernels = kernels_lib.tie(table, (2, 3))
  h = rng.normal(size=(4, D)).astype(np.float32)
  for slot, rows in ((0, dense[:2]), (1, dense[2:5])):
    np.testing.assert_allclose(
        kernels.one(h, slot), h @ rows.T, rtol=1e-4, atol=1e-5
    )


def test_equal_vocabularies_share_one_weight():
  """As do a LoRA's factors, which lead with the slot, too."""

  class Module(nn.Module):
    vocabularies: tuple[int, ...]

    @nn.compact
    def __call__(self, h):
      found = kernels_lib.create(self, 'w', (0, 2), self.vocabularies, D)
      return jnp.concatenate([found.one(h, slot) for slot in (0, 2)], axis=-1)

  h = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
  init = jax.eval_shape(Module((4, 9, 4)).init, jax.random.key(0), h)
  assert set(init['params']) == {'w'}
  init = jax.eval_shape(Module((4, 9, 5)).init, jax.random.key(0), h)
  assert set(init['params']) == {'w_0', 'w_2'}
  rng = np.random.default_rng(1)
  w, a, b = [
      rng.normal(size=shape).astype(np.float32)
      for shape in ((2, D, 4), (2, D, 1), (2, 1, 4))
  ]
  found = Module((4, 9, 4)).apply({'params': {'w': ops.LoraTensor(w, a, b)}}, h)
  wanted = np.concatenate(list(h @ (w + a @ b)), axis=-1)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
