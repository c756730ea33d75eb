"""Distances of sets against their closed forms, and what few clips do to them."""

import numpy as np
import pytest

from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import distributions
from audiolm_jax.evaluation import encoders
from tests.evaluation import reconstructing
from tests.evaluation import worlds

D = 6


def test_gaussians_have_the_distance_of_the_formula():
  rng = np.random.default_rng(0)
  mean = rng.standard_normal(D)
  # Of commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2.
  a, b = rng.random(D) + 0.1, rng.random(D) + 0.1
  turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
  cov_a, cov_b = (turn @ np.diag(v) @ turn.T for v in (a, b))
  got = distributions.frechet(mean, cov_a, np.zeros(D), cov_b)
  expected = mean @ mean + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  assert got == pytest.approx(expected)
  assert distributions.frechet(mean, cov_a, mean, cov_a) == pytest.approx(0)
  # Symmetric, where they do not commute too.
  other = np.cov(rng.standard_normal((D, 20)))
  one = distributions.frechet(mean, cov_a, 0 * mean, other)
  assert one == pytest.approx(
      distributions.frechet(0 * mean, other, mean, cov_a)
  )


def test_extrapolation_removes_the_bias_of_few_clips():
  plain, infinite = [], []
  for seed in range(12):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 120, 12))
    y[:, 0] += 1  # True distance 1.
    plain.append(distributions.frechet_of(x, y))
    infinite.append(distributions.frechet_infinity(x, y))
  bias = [np.mean(v) - 1 for v in (plain, infinite)]
  print(bias)
  assert bias[0] > 0.25 and abs(bias[1]) < 0.3 * bias[0]
  again = distributions.frechet_infinity(x, y)
  assert again == infinite[-1]
  with pytest.raises(ValueError, match='at least 7'):
    distributions.frechet_infinity(x[:4], y)


def test_the_jackknife_removes_the_bias_of_few_and_alike_frames():
  """Frames of a clip are alike, and tell less than as many others."""
  bias, found, width = [], [], []
  for seed in range(20):
    rng = np.random.default_rng(seed)
    clips, frames = (rng.standard_normal((2, 80, n, 8)) for n in (1, 5))
    x, y = np.sqrt(0.5) * (clips + frames)
    y[..., 0] += 1  # True distance 1.
    values = distributions.frechet_without(list(x), list(y), 10)
    assert values.shape == (10,)
    found.append(values.mean() - 1)
    width.append(values.std(ddof=1) / np.sqrt(10))
    bias.append(
        distributions.frechet_of(*(z.reshape(-1, 8) for z in (x, y))) - 1
    )
  assert np.mean(bias) > 0.2 and abs(np.mean(found)) < 0.3 * np.mean(bias)
  # The intervals are as wide as what they are of varies.
  assert 0.6 < np.mean(width) / np.std(found) < 1.7
  # Vectors of clips of any lengths are all in it; left out is a group of both.
  uneven = [z[: 1 + i % 5] for i, z in enumerate(x)]
  one, two = (
      distributions.frechet_of(
          np.concatenate(uneven[start::2]), np.concatenate(list(y)[start::2])
      )
      for start in (1, 0)
  )
  whole = distributions.frechet_of(
      np.concatenate(uneven), np.concatenate(list(y))
  )
  np.testing.assert_allclose(
      distributions.frechet_without(uneven, list(y), 2),
      [2 * whole - one, 2 * whole - two],
  )
  for groups, sets in ((1, (x, y)), (81, (x, y)), (2, (x, y[:3]))):
    with pytest.raises(ValueError, match='as many of both'):
      distributions.frechet_without(*map(list, sets), groups)


def test_kernel_distance_is_unbiased_and_that_of_two_gaussians():
  scale, shift = 2.0, 1.5
  same, apart = [], []
  for seed in range(40):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 40, 1))
    same.append(distributions.kernel_distance(x, y, scale))
    apart.append(distributions.kernel_distance(x, y + shift, scale))
  # E k(a, b) of a - b ~ N(m, 2): scale / sqrt(s2) exp(-m^2 / (2 s2)).
  variance = scale**2 + 2
  peak = scale / np.sqrt(variance)
  true = 2 * peak * (1 - np.exp(-(shift**2) / (2 * variance)))
  error = np.std(same) / np.sqrt(40)
  assert abs(np.mean(same)) < 4 * error
  assert min(same) < 0
  assert np.mean(apart) == pytest.approx(true, rel=0.1)
  with pytest.raises(ValueError, match='at least 2'):
    distributions.kernel_distance(x[:1], y)


def _set(clips):
  return [(c['audio'], c['sample_rate']) for c in clips]


def test_the_random_encoder_is_frozen_and_hears_noise():
  clips = worlds.clips(24)
  encode = encoders.RandomFeatures().open()
  again = encoders.RandomFeatures().open()
  assert encode.hash == again.hash
  assert encode.hash != encoders.RandomFeatures(seed=1).open().hash
  assert encode.hash != encoders.RandomFeatures(patch=8).open().hash
  x = encode(_set(clips))
  np.testing.assert_array_equal(x, again(_set(clips)))
  assert x.shape == (24, 64) and np.isfinite(x).all()
  rng = np.random.default_rng(0)

  def noisy(level):
    return [
        (a + level * rng.standard_normal(a.shape).astype(np.float32), r)
        for a, r in _set(clips)
    ]

  found = [
      distributions.distances(x, encode(noisy(level)))['kernel']
      for level in (0.0, 0.003, 0.03)
  ]
  assert abs(found[0]) < 0.05 < found[1] < found[2]
  short = encode([(np.zeros((n, 1), np.float32), 16000) for n in (0, 100)])
  assert np.isfinite(short).all() and not short[0].any()


def test_reconstructions_stand_beside_other_originals(monkeypatch):
  clips = worlds.clips(40)
  monkeypatch.setattr(data, 'load_corpus', lambda *_: clips)
  evaluator = evaluation.Distribution().build(reconstructing.Objective())
  scores = {s.name: s for s in evaluator.run(1.0)}
  name = f'encoder-{encoders.RandomFeatures().open().hash[:12]}'
  assert {s.item for s in scores.values()} == {name}
  # A copy is as far as the originals are.
  for metric in ('frechet', 'frechet_infinity', 'kernel'):
    copy, floor = scores[metric], scores[f'{metric}_original']
    assert copy.sum == pytest.approx(floor.sum, abs=1e-3)
  quiet = evaluation_base.summarize(evaluator.run(0.1))
  assert quiet['kernel'] > quiet['kernel_original'] + 0.1
