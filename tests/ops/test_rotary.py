"""Rotary positions: distances, norms and exactness."""

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
