"""Bits and lengths of rows, as bound models give and take them."""

import numpy as np
import pytest

from audiolm_jax.objectives import likelihood


def test_bits_are_those_of_each_row():
  log_prob = -np.log(2) * np.array([[[1, 2], [3, 0]], [[5, 5], [0, 0]]])
  found = likelihood.row_bits(log_prob, np.array([2, 1]))
  np.testing.assert_allclose(found, [3, 10])
  empty = likelihood.row_bits(0 * log_prob, np.array([0, 1]))
  np.testing.assert_array_equal(empty, [np.nan, 0])


def test_lengths_default_to_all_and_are_checked():
  given = likelihood.row_lengths(None, (2, 5, 1), 'codes')
  np.testing.assert_array_equal(given, [5, 5])
  given = likelihood.row_lengths([0, 5], (2, 5, 1), 'codes')
  np.testing.assert_array_equal(given, [0, 5])
  for wrong in ([6, 1], [-1, 2]):
    with pytest.raises(ValueError, match='are not within 5'):
      likelihood.row_lengths(wrong, (2, 5, 1), 'codes')
  with pytest.raises(ValueError, match='for codes'):
    likelihood.row_lengths([1], (2, 5, 1), 'codes')
