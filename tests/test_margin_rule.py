"""Tests of the margin rule, which other tests rest on."""

import numpy as np
import pytest

from tests import margin_rule

TIE = margin_rule.MARGIN / 2


def _codes():
  """Equal codes [100, 3] and clear margins."""
  expected = np.arange(300).reshape(100, 3)
  return expected.copy(), expected, np.full((100, 3), 0.5)


def test_equal_codes_pass_and_others_do_not():
  actual, expected, margins = _codes()
  margin_rule.assert_same_codes(actual, expected, margins)
  actual[4, 2] += 1
  with pytest.raises(AssertionError, match=r'1 of 300 .* first at \[4 2\]'):
    margin_rule.assert_same_codes(actual, expected, margins)


def test_a_tie_that_fell_the_other_way_excuses_what_follows():
  actual, expected, margins = _codes()
  margins[4, 1] = TIE
  actual[4, 1:] += 1
  margin_rule.assert_same_codes(actual, expected, margins)
  actual[4, 0] += 1
  with pytest.raises(AssertionError, match=r'first at \[4 0\]'):
    margin_rule.assert_same_codes(actual, expected, margins)


def test_a_tie_decided_alike_excuses_nothing():
  actual, expected, margins = _codes()
  margins[4, 1] = TIE
  actual[4, 2] += 1
  with pytest.raises(AssertionError, match=r'first at \[4 2\]'):
    margin_rule.assert_same_codes(actual, expected, margins)


def test_too_many_ties_fail_even_if_codes_are_equal():
  actual, expected, margins = _codes()
  margins[:3, 0] = TIE
  margin_rule.assert_same_codes(actual, expected, margins)
  margins[3, 0] = TIE
  with pytest.raises(AssertionError, match='4 left out'):
    margin_rule.assert_same_codes(actual, expected, margins)
  with pytest.raises(AssertionError):
    margin_rule.assert_same_codes(actual[:, :2], expected, margins)
