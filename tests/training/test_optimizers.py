"""Schedules in closed form; what decays; what Muon orthogonalises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax import ops
from audiolm_jax.training import optimizers

AXES = {
    'w': ('layers', 'embed', 'mlp'),
    'b': ('layers', 'mlp'),
    'emb': ('vocab', 'embed'),
}


def _params():
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = {'w': (2, 6, 4), 'b': (2, 4), 'emb': (5, 6)}
  return {
      name: jax.random.normal(key, shape)
      for key, (name, shape) in zip(keys, shapes.items(), strict=True)
  }


@pytest.mark.parametrize(
    'schedule,expected',
    [
        (optimizers.Constant(2.0, 3), [0.5, 1.0, 1.5, 2, 2, 2, 2, 2]),
        (optimizers.Linear(1.0), np.linspace(1, 0, 9)[:8]),
        (
            optimizers.Cosine(1.0, final=0.5),
            0.75 + 0.25 * np.cos(np.pi * np.arange(8) / 8),
        ),
        (
            optimizers.WarmupStableDecay(1.0, 2, decay=0.5),
            [1 / 3, 2 / 3, 1, 1, 1, 0.75, 0.5, 0.25],
        ),
        (
            optimizers.Exponential(8.0, warmup_steps=1, decay=0.5),
            [4, 8, 4, 2, 1, 0.5, 0.25, 0.125],
        ),
    ],
)
def test_schedules(schedule, expected):
  f = schedule.build(8)
  np.testing.assert_allclose([f(i) for i in range(8)], expected, rtol=1e-5)


def test_only_matrices_decay():
  """With a zero gradient AdamW's update is the decay alone."""
  params = _params()
  tx = optimizers.AdamW(weight_decay=0.1).build(lambda _: 0.5, AXES)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zero, tx.init(params), params)
  np.testing.assert_allclose(updates['w'], -0.05 * params['w'], rtol=1e-6)
  np.testing.assert_allclose(updates['emb'], -0.05 * params['emb'], rtol=1e-6)
  # [layers, mlp] is a batch of vectors, though it has two axes.
  assert not np.any(updates['b'])


def test_muon_orthogonalises_each_layer_and_leaves_the_rest_to_adam():
  params = _params()
  tx = optimizers.Muon().build(lambda _: 1.0, AXES)
  grads = jax.tree.map(jnp.square, params)
  updates, _ = tx.update(grads, tx.init(params), params)
  values = np.linalg.svd(np.asarray(updates['w']), compute_uv=False)
  assert values.max() / values.min() < 2.0
  # RMS 0.2 for a semi-orthogonal matrix of any shape.
  rms = np.sqrt(np.mean(np.square(updates['w'])))
  assert rms == pytest.approx(0.2, rel=0.2)
  for name in ('b', 'emb'):
    # Adam's first update has one size everywhere.
    size = np.abs(updates[name])
    np.testing.assert_allclose(size, size.max(), rtol=1e-3)


@pytest.mark.parametrize('kind', sorted(optimizers.OPTIMIZERS))
def test_holes_and_low_rank_leaves_keep_state_for_what_trains_only(kind):
  lora = ops.LoraTensor(None, jnp.ones((6, 2)), jnp.ones((2, 4)))
  params = {'w': lora, 'b': None}
  axes = {'w.w': ('embed', 'mlp'), 'w.a': ('embed', None), 'w.b': (None, 'mlp')}
  tx = optimizers.OPTIMIZERS[kind](weight_decay=0.1).build(lambda _: 0.1, axes)
  state = tx.init(params)
  largest = sum(x.size for x in jax.tree.leaves(params))
  assert sum(x.size for x in jax.tree.leaves(state)) <= 2 * largest + 8
  updates, _ = tx.update(params, state, params)
  new = optax.apply_updates(params, updates)
  assert new['w'].w is None and new['b'] is None
  assert np.all(new['w'].a != params['w'].a)
