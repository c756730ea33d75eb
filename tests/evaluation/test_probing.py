"""Probes against closed forms, and on labels that say all or nothing."""

import numpy as np
import pytest

from audiolm_jax.evaluation import probing

LINEAR = probing.Task(classes=2)


def _gaussians(n, distance, seed=0):
  """Two classes of unit variance, `distance` apart along the first axis."""
  rng = np.random.default_rng(seed)
  y = rng.integers(2, size=n)
  x = rng.standard_normal((n, 3)).astype(np.float32)
  x[:, 0] += distance * y
  return x, y


def test_a_linear_probe_finds_the_posterior_of_two_gaussians():
  x, y = _gaussians(20000, 2.0)
  probe = probing.fit(LINEAR, x, y, 1e-3)
  # ln p(1) / p(0) = distance x - distance^2 / 2.
  points = np.zeros((5, 3), np.float32)
  points[:, 0] = np.linspace(-1, 3, 5)
  log2p = probe(points)
  np.testing.assert_allclose(np.exp2(log2p).sum(axis=1), 1, rtol=1e-6)
  odds = (log2p[:, 1] - log2p[:, 0]) * np.log(2)
  np.testing.assert_allclose(odds, 2 * points[:, 0] - 2, atol=0.15)


def test_ridge_is_what_descent_finds_and_what_least_squares_says():
  rng = np.random.default_rng(1)
  x = rng.standard_normal((400, 4)).astype(np.float32) * [1, 5, 0.2, 1] + 3
  y = x @ [1.0, -2.0, 3.0, 0.0] + rng.standard_normal(400)
  task = probing.Task(classes=None)
  closed = probing.fit(task, x, y, 7.0)
  scales, target = closed.scales, closed.target
  descended = probing._descend(
      task,
      probing._prepare(task, x, scales),
      (y - target[0]) / target[1],
      7.0,
  )
  other = probing.Fitted(task, descended, scales, target)
  np.testing.assert_allclose(closed(x), other(x), atol=0.02)
  # Without a prior: numpy's least squares.
  flat = probing.fit(task, x, y, 1e-6)
  design = np.c_[x, np.ones(400)]
  expected = design @ np.linalg.lstsq(design, y, rcond=None)[0]
  np.testing.assert_allclose(flat(x), expected, atol=1e-3)


def test_codes_are_one_hot_vectors():
  rng = np.random.default_rng(2)
  sizes = (3, 5)
  codes = np.stack([rng.integers(v, size=300) for v in sizes], axis=1)
  hot = np.concatenate(
      [np.eye(v)[codes[:, k]] for k, v in enumerate(sizes)], axis=1
  )
  y = codes @ [1.0, -0.5] + 0.1 * rng.standard_normal(300)
  task = probing.Task(None, sizes)
  got = probing.fit(task, codes, y, 1.0)
  # The same network over the one-hot vectors themselves, not standardised.
  z = (y - y.mean()) / y.std()
  weights = probing._ridge(probing.Task(None), hot, z, 1.0)
  plain = probing._outputs(weights, hot)[:, 0] * y.std() + y.mean()
  np.testing.assert_allclose(got(codes), plain, atol=1e-4)
  codes, sizes = rng.integers(2, size=(300, 2)), (2, 2)
  classes = (codes[:, 0] + codes[:, 1]) % 2
  linear = probing.fit(probing.Task(2, sizes), codes, classes, 0.01)
  deep = probing.fit(probing.Task(2, sizes, hidden=16), codes, classes, 0.01)
  # Parity is not linear in one-hot vectors.
  right = [np.mean(p(codes).argmax(1) == classes) for p in (linear, deep)]
  assert right[0] < 0.76 and right[1] > 0.99


def test_the_prior_is_chosen_on_groups_that_are_held_out():
  rng = np.random.default_rng(3)
  x = rng.standard_normal((120, 60)).astype(np.float32)
  noise = rng.integers(2, size=120)
  groups = [f'speaker{i // 4}' for i in range(120)]
  grid = (0.1, 10.0, 1000.0)
  assert probing.choose(LINEAR, x, noise, groups, grid) > 0.1
  x, y = _gaussians(400, 8.0)
  groups = [str(i // 10) for i in range(400)]
  assert probing.choose(LINEAR, x, y, groups, grid) == 0.1
  held = probing.held_out(groups, 0.25)
  assert len(held) == 10 and held == probing.held_out(groups[::-1], 0.25)
  assert len(probing.held_out(['a', 'b'], 0.99)) == 1


def test_noise_costs_log2_k_and_what_is_known_costs_little():
  rng = np.random.default_rng(4)
  y = rng.integers(4, size=800)
  items = np.repeat(np.arange(200), 4).tolist()
  task = probing.Task(classes=4)
  noise = rng.standard_normal((800, 5)).astype(np.float32)
  bits = probing.online_code(task, noise, y, items, 1000.0)
  assert len(bits) == 200
  assert sum(bits.values()) / 800 == pytest.approx(2, abs=0.03)
  told = noise.copy()
  told[:, :4] += 6 * np.eye(4)[y]
  few = probing.online_code(task, told, y, items, 0.1)
  assert sum(few.values()) / 800 < 0.2
  # The first clip is always sent as it is.
  assert max(few.values()) >= 8


def test_chance_is_the_binomials():
  rng = np.random.default_rng(5)
  for classes, clips, high in ((2, 400, 0.549), (16, 400, 0.086)):
    labels = [np.array([i % classes]) for i in range(clips)]
    predicted = [np.array([k]) for k in rng.permutation(clips) % classes]
    mean, low, top = probing.chance(predicted, labels)
    assert mean == pytest.approx(1 / classes, abs=0.002)
    assert top == pytest.approx(high, abs=0.004)
    assert low < mean


def test_frames_of_a_clip_are_no_clips_of_their_own():
  """Labels that hold for whole clips vary as clips do, not as frames do."""
  rng = np.random.default_rng(6)
  labels = [np.full(rng.integers(5, 50), i % 2) for i in range(40)]
  predicted = [np.full(len(y), rng.integers(2)) for y in labels]
  _, low, high = probing.chance(predicted, labels)
  # By frames it would be .5 +- .03.
  assert high > 0.6 and low < 0.4


def test_control_labels_are_of_types_and_as_frequent_as_labels():
  y = np.repeat([0, 1, 2], [600, 300, 100])
  types = [f'w{i % 500}' for i in range(1000)]
  labels = probing.control_labels(types, y)
  np.testing.assert_array_equal(labels[:500], labels[500:])
  shares = np.bincount(labels, minlength=3) / 1000
  np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.06)
  assert np.any(labels != probing.control_labels(types, y, seed=1))
