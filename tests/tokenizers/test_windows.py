"""Pieces of streams: what of a long file one window says, and how they join."""

import numpy as np

from audiolm_jax.tokenizers import windows


def test_a_cross_fade_goes_from_the_one_to_the_other():
  before, audio = np.zeros((1, 4, 1)), np.ones((1, 6, 1))
  faded = windows.faded(before, audio)[0, :, 0]
  np.testing.assert_allclose(faded, [0.125, 0.375, 0.625, 0.875, 1, 1])
  np.testing.assert_array_equal(windows.faded(None, audio), audio)
