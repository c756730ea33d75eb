"""Codes compared by the margin rule (DESIGN, "Streaming is a contract").

Two ways of rounding may choose differently where the two nearest codes are
about equally near, and then differ at all later levels of that frame.
"""

import numpy as np

# Stricter than DESIGN's 1e-3, within which random codebooks, unlike trained
# ones, have more than 1% of their choices.
MARGIN = 1e-4
# Share of codes that may be left out.
MOST = 0.01


class Comparison:
  """Compares several pieces, and counts what the rule leaves out of them all.

  Left out are near ties, and what follows one that fell the other way. What
  follows one that both decided alike must be equal.
  """

  def __init__(self):
    self._near = self._after = self._total = 0

  def add(self, actual, expected, margins, name='codes') -> None:
    """One piece: codes, expected codes and margins, [..., K].

    Raises:
      AssertionError: if codes differ that are not left out.
    """
    actual, expected, margins = map(np.asarray, (actual, expected, margins))
    assert actual.shape == expected.shape == margins.shape, name
    near, differs = margins <= MARGIN, actual != expected
    after = np.logical_or.accumulate(near & differs, axis=-1) & ~near
    wrong = differs & ~near & ~after
    assert not wrong.any(), (
        f'{name}: {wrong.sum()} of {wrong.size} codes differ where margins are'
        f' clear, first at {np.argwhere(wrong)[0]}'
    )
    self._near += int(near.sum())
    self._after += int(after.sum())
    self._total += near.size

  def check(self, name='codes') -> None:
    """Prints how many were left out.

    Raises:
      AssertionError: if they are too many.
    """
    print(
        f'{name}: {self._near} of {self._total} codes left out as near ties,'
        f' {self._after} that follow one which fell the other way'
    )
    left_out = self._near + self._after
    assert left_out <= MOST * self._total, f'{name}: {left_out} left out'


def assert_same_codes(actual, expected, margins, name='codes') -> None:
  """A single piece; see `Comparison`."""
  comparison = Comparison()
  comparison.add(actual, expected, margins, name)
  comparison.check(name)
