"""Overlapping segments of audio: how decoded ones are added."""

import jax.numpy as jnp
import numpy as np

from audiolm_jax.tokenizers import segments


def test_segments_are_added_with_triangular_weights():
  """2210.13438, section 3.1; weights of the samples of a segment of 4."""
  cut = segments.Segments(size=4, stride=3)
  pieces = jnp.array([1.0, 3.0])[None, :, None, None] * jnp.ones((1, 2, 4, 1))
  audio = cut._add(pieces, jnp.full((1, 2), 4))
  # Sample 3 is the last of the first and the first of the second: as much each.
  np.testing.assert_allclose(audio[0, :, 0], [1, 1, 1, 2, 3, 3, 3])
  cut = segments.Segments(size=4, stride=2)
  audio = cut._add(pieces, jnp.full((1, 2), 4))
  # Weights .4 and .2 of the first beside .2 and .4 of the second.
  between = [(0.4 * 1 + 0.2 * 3) / 0.6, (0.2 * 1 + 0.4 * 3) / 0.6]
  np.testing.assert_allclose(audio[0, :, 0], [1, 1, *between, 3, 3], rtol=1e-6)
