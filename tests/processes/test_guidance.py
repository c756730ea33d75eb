"""Guidance against closed forms, and rows by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.processes import known

B, N, D = 2, 4, 3
MASK = np.arange(N) < np.array([[N], [2]])
T = np.array([0.7, 0.3], np.float32)
KINDS = {
    'plain': guidance_lib.Plain(2.5),
    'rescaled': guidance_lib.Rescaled(2.5, 0.6),
    'interval': guidance_lib.Interval(guidance_lib.Plain(2.5), 0.2, 0.5),
    'projected': guidance_lib.Projected(2.5, 0.3, 0.4),
}


def _values(count=3):
  rng = np.random.default_rng(0)
  return [rng.normal(size=(B, N, D)).astype(np.float32) for _ in range(count)]


def _pair(process=known.FLOW, target='u', t=T):
  z, given, null = _values()
  return guidance_lib.Pair(
      process, target, z, jnp.asarray(t), given, null, MASK
  )


def test_every_kind_is_tested_here():
  assert set(KINDS) == set(guidance_lib.GUIDANCE)


@pytest.mark.parametrize('name', KINDS)
def test_a_row_is_guided_by_itself_and_not_by_padding(name):
  pair = _pair()
  whole = KINDS[name].combine(pair)
  wide = (slice(1, 2), slice(0, 2))
  row = guidance_lib.Pair(
      *(known.FLOW, 'u', pair.z[wide], pair.t[1:2]),
      *(pair.given[wide], pair.null[wide], MASK[wide]),
  )
  np.testing.assert_allclose(
      KINDS[name].combine(row)[0], whole[1, :2], rtol=1e-5
  )


@pytest.mark.parametrize('name', KINDS)
def test_where_the_condition_makes_no_difference_there_is_no_guidance(name):
  pair = _pair()
  pair = pair._replace(null=pair.given)
  np.testing.assert_allclose(
      KINDS[name].combine(pair), pair.given, rtol=1e-4, atol=1e-6
  )


def test_rescaling_gives_the_deviation_of_the_conditional():
  pair = _pair()
  plain = guidance_lib.Plain(2.5).combine(pair)
  np.testing.assert_array_equal(
      guidance_lib.Rescaled(2.5, 0.0).combine(pair), plain
  )
  found = np.asarray(guidance_lib.Rescaled(2.5, 1.0).combine(pair))
  half = np.asarray(guidance_lib.Rescaled(2.5, 0.5).combine(pair))
  for row, count in enumerate(MASK.sum(1)):
    one, given, both = (
        np.asarray(y)[row, :count] for y in (found, pair.given, plain)
    )
    assert one.std() == pytest.approx(given.std(), rel=1e-5)
    np.testing.assert_allclose(one / both, (one / both).flat[0], rtol=1e-4)
    np.testing.assert_allclose(half[row, :count], (one + both) / 2, rtol=1e-4)


def test_an_interval_guides_between_its_ends_alone():
  kind = KINDS['interval']
  for t in ([0.1, 0.6], [0.2, 0.5]):
    pair = _pair(t=np.float32(t))
    found = kind.combine(pair)
    within = t == [0.2, 0.5]
    expected = kind.base.combine(pair) if within else pair.given
    np.testing.assert_array_equal(found, expected)
  with pytest.raises(config.ConfigError, match='first = 0.9 > last'):
    guidance_lib.Interval(first=0.9)


@pytest.mark.parametrize('target', 'xevu')
@pytest.mark.parametrize('process', [known.FLOW, known.COSINE, known.VP])
def test_projection_is_of_data_whatever_is_predicted(process, target):
  """As in 2410.02416, algorithm 1, in numpy."""
  kind, pair = KINDS['projected'], _pair(process, target)
  x, null = (
      np.asarray(process.estimate(target, y, pair.z, T).x, np.float64)
      for y in (pair.given, pair.null)
  )
  found = kind.combine(pair)
  got = np.asarray(process.estimate(target, found, pair.z, T).x)
  for row, count in enumerate(MASK.sum(1)):
    one = x[row, :count].ravel()
    change = one - null[row, :count].ravel()
    r = kind.most * np.sqrt(change.size)
    change *= min(1, r / np.linalg.norm(change))
    unit = one / np.linalg.norm(one)
    parallel = (change @ unit) * unit
    change = change - parallel + kind.along * parallel
    expected = one + (kind.scale - 1) * change
    np.testing.assert_allclose(
        got[row, :count].ravel(), expected, rtol=2e-3, atol=1e-4
    )


def test_projection_that_keeps_all_is_plain():
  pair = _pair()
  np.testing.assert_allclose(
      guidance_lib.Projected(2.5, along=1.0).combine(pair),
      guidance_lib.Plain(2.5).combine(pair),
      rtol=1e-4,
      atol=1e-5,
  )


@pytest.mark.parametrize('name', KINDS)
def test_data_itself_is_not_guided_to_nan(name):
  """A solver that asks at t = 0, as Heun does, gets numbers there."""
  found = KINDS[name].combine(_pair(t=np.float32([0, 1])))
  assert np.isfinite(found).all()


def test_a_guided_denoiser_of_normals_samples_the_moved_normal():
  """N(m, 1) guided over N(0, 1) is N(w m, 1); wrong sides are not."""
  pair = [known.normal(known.FLOW, 'u', m) for m in (2.0, 0.0)]
  keys = jax.random.split(jax.random.key(0), 1)
  z = noise_lib.normal(keys, (2, 1))
  mask = jnp.ones((1, 2), bool)

  def mean(*pair):
    denoiser = guidance_lib.guide(guidance_lib.Plain(3.0), *pair, mask)
    assert isinstance(denoiser, gaussian.Denoiser)
    x = solvers.sample(solvers.Heun(), denoiser, z, times_lib.Grid(16).times)
    return float((x - z)[0, 0, 0])

  assert mean(*pair) == pytest.approx(6.0, abs=1e-2)
  assert mean(*pair[::-1]) == pytest.approx(-4.0, abs=1e-2)


def test_a_mixture_adds_what_its_parts_change():
  """Of N(m, 1) in place of N(0, 1): N(sum of w m, 1); of one part, plain."""
  null = known.normal(known.FLOW, 'u')
  parts = [known.normal(known.FLOW, 'u', mean) for mean in (2.0, -1.0)]
  mixture = guidance_lib.Mixture(((1.5, ('a', 'b')), (0.5, ('b',))))
  z, _, _ = _values()
  t = jnp.asarray(T)
  found = guidance_lib.mix(mixture, parts, null)
  expected = known.normal(known.FLOW, 'u', 1.5 * 2.0 - 0.5)
  np.testing.assert_allclose(
      found.predict(z, t), expected.predict(z, t), rtol=1e-4, atol=1e-5
  )
  one = guidance_lib.Mixture(((2.5, ('a',)),))
  plain = guidance_lib.guide(KINDS['plain'], parts[0], null, MASK)
  np.testing.assert_allclose(
      guidance_lib.mix(one, parts[:1], null).predict(z, t),
      plain.predict(z, t),
      rtol=1e-4,
      atol=1e-5,
  )
  for bad in ((), ((1.0, ()),)):
    with pytest.raises(config.ConfigError, match='expected a weight'):
      guidance_lib.Mixture(bad)
