"""Bits and lengths of rows, as models give and take them."""

import numpy as np
import pytest

from audiolm_jax.models import rows as rows_lib


def test_bits_are_those_of_each_row():
  log_prob = -np.log(2) * np.array([[[1, 2], [3, 0]], [[5, 5], [0, 0]]])
  found = rows_lib.bits(log_prob, np.array([2, 1]))
  np.testing.assert_allclose(found, [3, 10])
  empty = rows_lib.bits(0 * log_prob, np.array([0, 1]))
  np.testing.assert_array_equal(empty, [np.nan, 0])


def test_lengths_default_to_all_and_are_checked():
  given = rows_lib.lengths(None, (2, 5, 1), 'codes')
  np.testing.assert_array_equal(given, [5, 5])
  given = rows_lib.lengths([0, 5], (2, 5, 1), 'codes')
  np.testing.assert_array_equal(given, [0, 5])
  for wrong in ([6, 1], [-1, 2]):
    with pytest.raises(ValueError, match='are not within 5'):
      rows_lib.lengths(wrong, (2, 5, 1), 'codes')
  with pytest.raises(ValueError, match='for codes'):
    rows_lib.lengths([1], (2, 5, 1), 'codes')
