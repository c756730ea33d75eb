"""Lookup-free quantisation: codes, margins, and the two entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.tokenizers.bottlenecks import lfq

BITS = 3
LFQ = lfq.Lfq(bits=BITS, project=False, scale=0.5, temperature=0.7)
MASK = np.ones((2, 10), bool)
_quantise = jax.jit(LFQ.quantise)


@pytest.fixture(name='x', scope='module')
def _x():
  rng = np.random.default_rng(0)
  return 0.4 * rng.standard_normal((2, 10, BITS)).astype(np.float32)


@pytest.fixture(name='fresh', scope='module')
def _fresh():
  return LFQ.init(jax.random.key(0), BITS)


def _softmax(x, vectors):
  """By the definition: exp(-|x - c|^2 / temperature)."""
  distances = np.square(x[..., None, :] - vectors).sum(-1)
  weights = np.exp(-distances / LFQ.temperature)
  return weights / weights.sum(-1, keepdims=True)


def test_codes_are_the_nearest_corners(x, fresh):
  vectors = np.asarray(LFQ.code_vectors(fresh))[0]
  assert vectors.shape == (2**BITS, BITS)
  distances = np.linalg.norm(x[..., None, :] - vectors, axis=-1)
  found = _quantise(fresh, x, MASK)
  np.testing.assert_array_equal(found.codes[..., 0], distances.argmin(-1))
  codes = np.arange(2**BITS)[None, :, None]
  np.testing.assert_array_equal(LFQ.dequantise(fresh, codes)[0], vectors)
  first = found.margins[..., 0]
  # Along the dimension nearest to zero: |x| of it against the other side.
  near, far = np.abs(np.abs(x) - 0.5), np.abs(x) + 0.5
  expected = ((far - near) / (far + near)).min(-1)
  np.testing.assert_allclose(first, expected, rtol=1e-5)


def test_entropies_by_hand(x, fresh):
  vectors = np.asarray(LFQ.code_vectors(fresh))[0]
  p = _softmax(x, vectors)
  average = np.random.default_rng(1).dirichlet(np.ones(2**BITS))
  variables = {**fresh, 'state': lfq.State(jnp.asarray(average[None]))}
  losses = _quantise(variables, x, MASK).losses
  entropy = -(p * np.log(p)).sum(-1)
  np.testing.assert_allclose(losses['entropy'], entropy, rtol=1e-4)
  diversity = (p * np.log(average)).sum(-1)
  np.testing.assert_allclose(losses['diversity'], diversity, rtol=1e-4)
  corners = np.where(x > 0, 0.5, -0.5)
  commitment = np.square(x - corners).mean(-1)
  np.testing.assert_allclose(losses['commitment'], commitment, rtol=1e-4)


def test_diversity_has_the_gradient_of_the_entropy_of_the_mean(x, fresh):
  vectors = LFQ.code_vectors(fresh)[0]

  def mean_of(x):
    distances = jnp.square(x[..., None, :] - vectors).sum(-1)
    return jax.nn.softmax(-distances / LFQ.temperature).mean(axis=(0, 1))

  def minus_entropy(x):
    p = mean_of(x)
    return jnp.sum(p * jnp.log(p))

  variables = {**fresh, 'state': lfq.State(mean_of(x)[None])}
  value, gradient = jax.jit(
      jax.value_and_grad(
          lambda x: LFQ.quantise(variables, x, MASK).losses['diversity'].mean()
      )
  )(x)
  expected, expected_gradient = jax.jit(jax.value_and_grad(minus_entropy))(x)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


def test_the_average_follows_the_distribution(x, fresh):
  vectors = np.asarray(LFQ.code_vectors(fresh))[0]
  mask = np.arange(10) < np.array([7, 3])[:, None]
  found = _quantise(fresh, x, mask)
  statistics = LFQ.statistics(found, mask, jax.random.key(0))
  state = LFQ.update(fresh['state'], statistics, jax.random.key(0))
  expected = 0.9 / 2**BITS + 0.1 * _softmax(x, vectors)[mask].mean(0)
  np.testing.assert_allclose(state.average[0], expected, rtol=1e-4)


def test_training_on_diversity_spreads_the_codes(fresh):
  """Inputs in one corner move apart, by gradients that add over frames."""
  rng = np.random.default_rng(0)
  x = 0.1 * rng.standard_normal((2, 10, BITS)).astype(np.float32) + 0.2

  @jax.jit
  def step(x, state):
    variables = {**fresh, 'state': state}

    def loss(x):
      found = LFQ.quantise(variables, x, MASK)
      sums = {name: v.sum() for name, v in found.losses.items()}
      return sums['diversity'] + 0.5 * sums['entropy'], found

    gradient, found = jax.grad(loss, has_aux=True)(x)
    statistics = LFQ.statistics(found, MASK, jax.random.key(0))
    state = LFQ.update(state, statistics, jax.random.key(0))
    return x - 0.05 * gradient, state, found.codes

  state, used = fresh['state'], []
  for _ in range(200):
    x, state, codes = step(x, state)
    used.append(len(np.unique(codes)))
  assert used[0] <= 3 and used[-1] >= 6, used[:: len(used) // 10]
