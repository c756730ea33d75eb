"""Residual quantisation: values, gradients, statistics, dead codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.tokenizers.bottlenecks import vq

K, V, D = 3, 16, 4


def _jit(function, **options):
  return jax.jit(
      function,
      compiler_options={'xla_backend_optimization_level': 0},
      **options,
  )


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((4, 12, D)).astype(np.float32)
  mask = np.arange(12) < np.array([12, 7, 1, 0])[:, None]
  codebooks = rng.standard_normal((K, V, D)).astype(np.float32)
  return x, mask, codebooks / np.arange(1, K + 1)[:, None, None]


def _numpy_rvq(x, codebooks):
  codes, total = [], np.zeros_like(x)
  for book in codebooks:
    distance = np.linalg.norm((x - total)[..., None, :] - book, axis=-1)
    codes.append(distance.argmin(-1))
    total = total + book[codes[-1]]
  return np.stack(codes, -1), total


_quantise = _jit(vq.quantise)
_statistics = _jit(vq.statistics, static_argnums=2)
_update = _jit(vq.update, static_argnums=3)


def test_quantise_equals_brute_force(data):
  x, mask, codebooks = data
  quantised = _quantise(codebooks, x, mask)
  codes, total = _numpy_rvq(x, codebooks)
  np.testing.assert_array_equal(
      quantised.codes, np.where(mask[..., None], codes, 0)
  )
  np.testing.assert_allclose(
      np.asarray(quantised.latents)[mask], total[mask], atol=1e-5
  )
  np.testing.assert_allclose(
      vq.dequantise(codebooks, quantised.codes)[mask], total[mask], atol=1e-5
  )


def test_latents_have_the_gradient_of_the_identity(data):
  x, mask, codebooks = data
  weight = np.random.default_rng(1).standard_normal(x.shape)
  gradient = jax.grad(
      lambda x: jnp.sum(vq.quantise(codebooks, x, mask).latents * weight)
  )(x)
  np.testing.assert_allclose(
      gradient, np.where(mask[..., None], weight, 0), rtol=1e-6
  )


def test_commitment_pulls_each_level_towards_its_sum(data):
  x, mask, codebooks = data
  levels = jnp.array([3, 1, 2, 3])
  gradient = jax.grad(
      lambda x: jnp.sum(
          vq.quantise(codebooks, x, mask, levels).losses['commitment']
      )
  )(x)
  expected = np.zeros_like(x)
  for row, used in enumerate([3, 1, 2, 3]):
    for k in range(used):
      _, total = _numpy_rvq(x[row], codebooks[: k + 1])
      expected[row] += 2 / D / used * (x[row] - total)
  expected[~mask] = 0
  np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_dropped_levels_leave_latents_but_keep_codes(data):
  x, mask, codebooks = data
  full = _quantise(codebooks, x, mask)
  dropped = _quantise(codebooks, x, mask, jnp.array([1, 2, 3, 1]))
  np.testing.assert_array_equal(full.codes, dropped.codes)
  first = vq.dequantise(codebooks, full.codes[..., :1])
  np.testing.assert_allclose(dropped.latents[0], first[0], atol=1e-5)
  levels = vq.dropout_levels(jax.random.key(0), 4000, 4, 0.5)
  share = np.bincount(levels, minlength=5)[1:] / 4000
  np.testing.assert_allclose(share, [0.125, 0.125, 0.125, 0.625], atol=0.03)


def test_masked_frames_count_for_nothing(data):
  x, mask, codebooks = data
  key = jax.random.key(0)
  poisoned = np.where(mask[..., None], x, np.nan)
  results = [
      _statistics(_quantise(codebooks, v, mask), mask, V, key)
      for v in (x, poisoned)
  ]
  jax.tree.map(np.testing.assert_array_equal, *results)
  assert results[0].counts.sum() == K * mask.sum()
  # The sums of residuals chosen by code v, by hand, at the first level.
  codes, _ = _numpy_rvq(x, codebooks)
  for v in range(V):
    chosen = mask & (codes[..., 0] == v)
    np.testing.assert_allclose(
        results[0].sums[0, v], x[chosen].sum(0), atol=1e-5
    )


def test_statistics_add_over_microbatches(data):
  x, mask, codebooks = data

  def sums(rows):
    quantised = _quantise(codebooks, x[rows], mask[rows])
    return _statistics(quantised, mask[rows], V, jax.random.key(1))

  parts = jax.tree.map(jnp.add, sums(slice(0, 2)), sums(slice(2, 4)))
  whole = sums(slice(0, 4))
  np.testing.assert_allclose(parts.counts, whole.counts)
  np.testing.assert_allclose(parts.sums, whole.sums, atol=1e-5)
  assert parts.candidate_counts.sum() == whole.candidate_counts.sum()


def test_update_is_the_moving_average_of_live_codes(data):
  x, mask, codebooks = data
  state = vq.State(
      codebooks=codebooks,
      counts=jnp.full((K, V), 5.0),
      sums=5.0 * codebooks,
      updates=jnp.zeros(K, jnp.int32),
  )
  quantised = _quantise(codebooks, x, mask)
  new = _statistics(quantised, mask, V, jax.random.key(0))
  after = _update(state, new, jax.random.key(1), vq.Ema(0.9, 0.0))
  counts = 0.9 * 5 + 0.1 * new.counts
  expected = (0.9 * 5 * codebooks + 0.1 * new.sums) / counts[..., None]
  np.testing.assert_allclose(after.codebooks, expected, atol=1e-5)
  # Nothing valid: nothing moves.
  empty = jax.tree.map(jnp.zeros_like, new)
  same = _update(state, empty, jax.random.key(1), vq.Ema())
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), same, state
  )


def _used(state, x, mask):
  codes = _quantise(state.codebooks, x, mask).codes[..., 0]
  return len(np.unique(codes)) / state.counts.shape[1]


@pytest.mark.parametrize('start', ['half-dead', 'new'])
def test_dead_codes_are_replaced_and_stay_alive(start):
  """From a half-dead codebook, usage > 90% after one update and after more."""
  rng = np.random.default_rng(0)
  vocabulary = 64
  x = rng.standard_normal((8, 256, D)).astype(np.float32)
  mask = np.ones((8, 256), bool)
  if start == 'new':
    state = vq.init(1, vocabulary, D)
  else:
    book = rng.standard_normal((1, vocabulary, D)).astype(np.float32)
    book[:, vocabulary // 2 :] += 100.0
    counts = np.full((1, vocabulary), 32.0, np.float32)
    counts[:, vocabulary // 2 :] = 0.0
    state = vq.State(book, counts, book * counts[..., None], np.zeros(1, int))
  assert _used(state, x, mask) <= 0.5
  used = []
  for step in range(4):
    key = jax.random.fold_in(jax.random.key(0), step)
    quantised = _quantise(state.codebooks, x, mask)
    new = _statistics(quantised, mask, vocabulary, key)
    state = _update(state, new, key, vq.Ema())
    used.append(_used(state, x, mask))
  assert min(used) > 0.9, used


def test_margin_says_how_close_the_second_best_is():
  books = jnp.array([[[0.0], [1.0]]])
  x = jnp.array([[[0.5], [0.25], [0.0]]])
  margins = vq.quantise(books, x, jnp.ones((1, 3), bool)).margins[0, :, 0]
  np.testing.assert_allclose(margins, [0.0, 0.5, 1.0], atol=1e-6)


def test_usage_and_entropy():
  counts = jnp.array([[1.0, 1, 1, 1], [4.0, 0, 0, 0]])
  metrics = vq.usage_metrics(counts)
  np.testing.assert_allclose(metrics['usage'], [1.0, 0.25])
  np.testing.assert_allclose(metrics['entropy'], [2.0, 0.0])


def test_normalised_lookup_compares_directions(data):
  x, _, codebooks = data
  book = codebooks[0] * np.linspace(0.1, 10, V)[:, None].astype(np.float32)
  codes, margins = vq.nearest(book, x, normalize=True)
  unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, book)]
  distances = np.linalg.norm(unit[0][..., None, :] - unit[1], axis=-1)
  np.testing.assert_array_equal(codes, distances.argmin(-1))
  first, second = np.sort(distances, axis=-1)[..., :2].transpose(2, 0, 1)
  expected = (second - first) / (second + first)
  np.testing.assert_allclose(margins, expected, rtol=1e-2, atol=1e-3)
  assert (codes != vq.nearest(book, x)[0]).any()


def test_codebook_loss_moves_codes_towards_their_residuals(data):
  x, mask, codebooks = data
  gradient = jax.grad(
      lambda books: jnp.sum(vq.quantise(books, x, mask).losses['codebook'])
  )(codebooks)
  codes, _ = _numpy_rvq(x, codebooks)
  expected, residual = np.zeros_like(codebooks), x
  for k in range(K):
    chosen = codebooks[k][codes[..., k]]
    np.add.at(
        expected[k],
        codes[mask][:, k],
        (2 / D / K * (chosen - residual))[mask],
    )
    residual = residual - chosen
  np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_k_means_is_lloyds():
  rng = np.random.default_rng(0)
  points = rng.standard_normal((40, 2)).astype(np.float32)
  valid = np.arange(40) < 30
  # The last centroid is nearest to nothing.
  start = np.concatenate([points[:4], [[50.0, 50.0]]]).astype(np.float32)
  centroids, share = _jit(vq.k_means, static_argnums=3)(points, valid, start, 6)
  expected = start.copy()
  for _ in range(6):
    distances = np.linalg.norm(points[:30, None] - expected, axis=-1)
    codes = distances.argmin(-1)
    for v in np.unique(codes):
      expected[v] = points[:30][codes == v].mean(0)
  np.testing.assert_allclose(centroids, expected, atol=1e-5)
  np.testing.assert_allclose(share, np.bincount(codes, minlength=5) / 30)


@functools.cache
def _updates(ema, vocabulary=16):
  """States of two levels after each of two updates on data in clusters."""
  rng = np.random.default_rng(0)
  centres = 4 * rng.standard_normal((vocabulary, D))
  x = centres[rng.integers(0, vocabulary, (4, 256))]
  x = (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32)
  mask = np.ones((4, 256), bool)

  @_jit
  def step(state, key):
    quantised = vq.quantise(state.codebooks, x, mask)
    new = vq.statistics(quantised, mask, vocabulary, key, candidates=256)
    error = jnp.square(quantised.residuals[1]).mean()
    return vq.update(state, new, key, ema), error

  state, states, errors = vq.init(2, vocabulary, D), [], []
  for i in range(2):
    state, error = step(state, jax.random.key(i))
    states.append(state)
    errors.append(float(error))
  return states, errors


def test_k_means_starts_one_level_an_update_better_than_data_alone():
  plain, plain_errors = _updates(vq.Ema(0.9))
  started, errors = _updates(vq.Ema(0.9, iterations=10))
  for states in (plain, started):
    used = [np.asarray(s.counts.sum(axis=-1) > 0) for s in states]
    np.testing.assert_array_equal(used, [[True, False], [True, True]])
  # Before any update all of the data is left over.
  assert errors[0] == plain_errors[0]
  assert errors[1] < 0.8 * plain_errors[1]
  first = started[0]
  np.testing.assert_allclose(first.counts[0].sum(), 4 * 256, rtol=1e-5)
  np.testing.assert_allclose(
      first.sums[0], first.codebooks[0] * first.counts[0][:, None], rtol=1e-5
  )


def test_k_means_leaves_levels_in_use_alone():
  (*_, state), _ = _updates(vq.Ema(0.9))
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 64, D)).astype(np.float32)
  mask = np.ones((2, 64), bool)
  key = jax.random.key(5)
  new = _statistics(_quantise(state.codebooks, x, mask), mask, 16, key)
  plain = _update(state, new, key, vq.Ema(0.9))
  other = _update(state, new, key, vq.Ema(0.9, iterations=10))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, other
  )


def test_dead_codes_are_replaced_only_when_checked():
  (*_, state), _ = _updates(vq.Ema(0.9))
  dead = state.codebooks.at[0, 3].add(1000.0)
  counts = state.counts.at[0, 3].set(0.0)
  state = state.replace(
      codebooks=dead, counts=counts, sums=dead * counts[..., None]
  )
  x = np.random.default_rng(1).standard_normal((2, 64, D)).astype(np.float32)
  mask = np.ones((2, 64), bool)
  key = jax.random.key(5)
  new = _statistics(_quantise(state.codebooks, x, mask), mask, 16, key)
  alive = {}
  for updates in (4, 5, 6):
    given = state.replace(updates=jnp.full(2, updates))
    after = _update(given, new, key, vq.Ema(0.9, check_every=5))
    np.testing.assert_array_equal(after.updates, updates + 1)
    alive[updates] = bool(after.counts[0, 3] > 0)
  assert alive == {4: False, 5: True, 6: False}


def test_sums_are_those_of_a_product_with_one_hots(data):
  """On CPUs they are scattered additions; elsewhere products."""
  x, mask, codebooks = data
  quantised = vq.quantise(codebooks, x, mask)
  found = vq.statistics(quantised, mask, V, jax.random.key(0))
  valid = mask.reshape(-1)
  for k in range(K):
    codes = quantised.codes[..., k].reshape(-1)
    chosen = jax.nn.one_hot(codes, V) * valid[:, None]
    residuals = quantised.residuals[k].reshape(valid.size, -1)
    np.testing.assert_allclose(
        found.sums[k], chosen.T @ residuals, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(found.counts[k], chosen.sum(axis=0))


def test_ties_go_to_the_first_code():
  codebook = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
  codes, margins = vq.nearest(codebook, jnp.array([[1.0, 0.0], [0.0, 2.0]]))
  assert codes.tolist() == [0, 1] and margins[0] == 0 and margins[1] > 0


@pytest.mark.parametrize('size', [96, 40, 7, 2])
def test_nearest_equals_brute_force_whatever_the_size(size):
  # Whole numbers are exact, and full of ties within and between groups.
  rng = np.random.default_rng(size)
  book = rng.integers(-2, 3, (size, 4)).astype(np.float32)
  x = rng.integers(-2, 3, (300, 4)).astype(np.float32)
  codes, margins = _jit(vq.nearest)(book, x)
  distances = np.linalg.norm(x[:, None] - book, axis=-1)
  np.testing.assert_array_equal(codes, distances.argmin(-1))
  near, far = np.sort(distances, axis=-1)[:, :2].T
  expected = (far - near) / np.maximum(far + near, 1e-12)
  np.testing.assert_allclose(margins, expected, atol=1e-6)
