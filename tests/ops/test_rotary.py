"""Rotary positions: distances, norms and exactness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import rotary


def test_rotary_scores_depend_on_distance_only_and_keep_norms():
  rng = np.random.default_rng(1)
  q, k = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def score(query, key):
    turned = [
        rotary.rotate(x, rotary.Rope(100.0).rotation(jnp.array([[p]]), 8))
        for x, p in ((q, query), (k, key))
    ]
    np.testing.assert_allclose(
        [jnp.linalg.norm(x) for x in turned],
        [np.linalg.norm(q), np.linalg.norm(k)],
        rtol=1e-5,
    )
    return float(jnp.sum(turned[0] * turned[1]))

  assert score(7, 3) == pytest.approx(score(104, 100), rel=1e-4)
  assert score(7, 3) != pytest.approx(score(8, 3), rel=1e-2)
  assert score(0, 0) == pytest.approx(float(np.sum(q * k)), rel=1e-5)


def test_rotary_needs_an_even_width():
  with pytest.raises(ValueError, match='even head width: 3'):
    rotary.Rope().rotation(jnp.arange(2)[None], 3)


def test_angles_are_exact_in_long_streams():
  """A week of 50 Hz steps; a product in fp32 would be off by a radian."""
  position = 30_000_007
  cos, sin = rotary.Rope(10_000.0).rotation(jnp.array([[position]]), 8)
  radians = 10_000.0 ** (-np.arange(4) / 4.0)
  np.testing.assert_allclose(
      cos[0, 0, 0], np.cos(position * radians), atol=1e-4
  )
  np.testing.assert_allclose(
      sin[0, 0, 0], np.sin(position * radians), atol=1e-4
  )


def test_known_positions_make_constants_of_the_same_angles():
  positions = np.array([[0, 1, 77, 8191]])
  rope = rotary.Rope(500.0, rotary.Yarn(4.0, 64))
  known = jax.make_jaxpr(lambda: rope.rotation(positions, 8))()
  assert not any(e.primitive.name in ('cos', 'sin') for e in known.eqns)
  computed = jax.jit(lambda p: rope.rotation(p, 8))(positions)
  for got, want in zip(rope.rotation(positions, 8), computed, strict=True):
    np.testing.assert_allclose(got, want, atol=1e-4)
  # Such a program would be too large.
  many = np.zeros((3, 8192), np.int32)
  jaxpr = jax.make_jaxpr(lambda: rope.rotation(many, 8))()
  assert any(e.primitive.name == 'cos' for e in jaxpr.eqns)


def test_a_fraction_leaves_the_end_of_a_head_alone():
  x = np.random.default_rng(0).normal(size=(1, 3, 2, 8)).astype(np.float32)
  rope = rotary.Rope(100.0, fraction=0.5)
  y = rotary.rotate(x, rope.rotation(jnp.arange(3)[None], 8))
  np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
  whole = rotary.Rope(100.0).rotation(jnp.arange(3)[None], 4)
  np.testing.assert_allclose(y[..., :4], rotary.rotate(x[..., :4], whole))


def test_yarn_keeps_fast_dimensions_and_stretches_slow_ones():
  plain = rotary.frequencies(64, 10_000.0)
  yarn = rotary.Yarn(factor=8.0, original_length=1024)
  ratio = plain / yarn.blend(plain, 10_000.0)
  turns = 1024 * plain / (2 * np.pi)
  assert (ratio[turns > 40] == 1).all()
  np.testing.assert_allclose(ratio[turns < 0.5], 8)
  assert (np.diff(ratio) >= 0).all()
  assert yarn.scale == pytest.approx(1 + 0.1 * np.log(8))
  one = rotary.Yarn(factor=1.0, original_length=1024)
  np.testing.assert_allclose(one.blend(plain, 10_000.0), plain)
  cos, _ = rotary.Rope(10_000.0, yarn).rotation(jnp.array([[0]]), 64)
  np.testing.assert_allclose(cos, yarn.scale)


def test_llama3_divides_slow_frequencies_and_blends_between():
  plain = rotary.frequencies(64, 10_000.0)
  llama3 = rotary.Llama3(factor=8.0, original_length=1024)
  ratio = llama3.blend(plain) / plain
  turns = 1024 * plain / (2 * np.pi)
  np.testing.assert_allclose(ratio[turns > 4], 1)
  np.testing.assert_allclose(ratio[turns < 1], 1 / 8)
  between = (turns > 1) & (turns < 4)
  assert between.any()
  expected = 1 / 8 + (turns[between] - 1) / 3 * 7 / 8
  np.testing.assert_allclose(ratio[between], expected)
  cos, _ = rotary.Rope(10_000.0, llama3=llama3).rotation(jnp.array([[5]]), 64)
  np.testing.assert_allclose(
      cos[0, 0, 0], np.cos(5 * plain * ratio), rtol=1e-5, atol=1e-6
  )
  with pytest.raises(ValueError, match='not both'):
    both = rotary.Rope(yarn=rotary.Yarn(8.0, 1024), llama3=llama3)
    both.rotation(jnp.array([[0]]), 64)


def test_heads_are_rotated_by_their_numbers():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype(np.float32)
  y = rotary.HeadRope(100.0).rotate(x, np.arange(3)[None])
  for head in range(4):
    at = rotary.Rope(100.0).rotation(np.full((1, 1), head), 8)
    alone = rotary.rotate(x[:, :, head : head + 1], at)
    np.testing.assert_allclose(y[:, :, head], alone[:, :, 0], atol=1e-6)
  np.testing.assert_array_equal(y[:, :, 0], x[:, :, 0])
