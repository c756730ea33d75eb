"""Which frames are hidden in training: how often, and of which rows."""

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.processes import noise as noise_lib

ROWS, F = 4000, 12


def _draw(gaps, lengths, count=F, first=0):
  keys = noise_lib.row_keys(jax.random.key(0), first + np.arange(len(lengths)))
  return np.asarray(gaps.draw(keys, np.asarray(lengths), count))


def test_all_are_hidden_where_nothing_is_kept():
  found = _draw(gaps_lib.Gaps(prefix=0.0, segments=0.0), [F, 5, 0, 1])
  np.testing.assert_array_equal(found.sum(1), [F, 5, 0, 1])


def test_a_beginning_of_any_length_is_kept():
  found = _draw(gaps_lib.Gaps(prefix=1.0, segments=0.0), [F] * ROWS)
  kept = F - found.sum(1)
  # What is hidden comes after what is kept.
  assert (np.diff(found.astype(int), axis=1) >= 0).all()
  counts = np.bincount(kept, minlength=F + 1)
  assert counts[F] == 0
  np.testing.assert_allclose(counts[:F] / ROWS, 1 / F, atol=0.02)


def test_segments_hide_what_lies_between_their_ends():
  gaps = gaps_lib.Gaps(prefix=0.0, segments=1.0, most_segments=2)
  found = _draw(gaps, [F] * ROWS)
  pieces = (np.diff(found.astype(int), axis=1, prepend=0) == 1).sum(1)
  # One frame is always hidden, which may lie apart.
  assert pieces.min() == 1 and pieces.max() == 3
  # An odd number of 2 s independent ends comes before a frame.
  before = np.arange(1, F + 1) / (F + 1)
  odd = np.mean([(1 - (1 - 2 * before) ** (2 * s)) / 2 for s in (1, 2)], axis=0)
  expected = odd + (1 - odd) / F
  np.testing.assert_allclose(found.mean(0), expected, atol=0.03)


def test_one_piece_is_hidden_anywhere():
  count = 40
  gaps = gaps_lib.Gaps(prefix=0.0, segments=0.0, piece=1.0, least=0.5)
  found = _draw(gaps, [count] * ROWS, count)
  edges = np.diff(found.astype(int), axis=1, prepend=0)
  assert ((edges == 1).sum(1) == 1).all()
  size, start = found.sum(1), found.argmax(1)
  # Any length from a half to the whole, and any place for it.
  assert size.min() == count / 2 and size.max() == count
  counts = np.bincount(size, minlength=count + 1)[21:40]
  np.testing.assert_allclose(counts / ROWS, 2 / count, atol=0.02)
  room = count - size
  assert (start <= room).all()
  share = (start / np.maximum(room, 1))[room > 4]
  assert share.mean() == pytest.approx(0.5, abs=0.03)
  assert share.std() == pytest.approx(1 / 12**0.5, abs=0.04)


def test_shares_of_rows():
  gaps = gaps_lib.Gaps(prefix=0.2, segments=0.3)
  found = _draw(gaps, [F] * ROWS)
  # Rows of segments or of a beginning, but for those that keep none of it.
  some = (~found.all(1)).mean()
  assert some == pytest.approx(0.2 * (1 - 1 / F) + 0.3, abs=0.03)
  piece = _draw(gaps_lib.Gaps(0.2, 0.3, piece=0.4, least=0.5), [F] * ROWS)
  # Lengths that round to the whole hide all.
  kept = 0.4 * (1 - 0.5 / F / 0.5)
  more = (~piece.all(1)).mean() - some
  assert more == pytest.approx(kept, abs=0.03)
  beginning = _draw(gaps_lib.Gaps(prefix=0.2, segments=0.0), [F] * ROWS)
  kept = (~beginning.all(1)).mean()
  assert kept == pytest.approx(0.2 * (1 - 1 / F), abs=0.02)


@pytest.mark.parametrize(
    'shares',
    [
        {'prefix': 0.5, 'segments': 0.5, 'most_segments': 3},
        {'prefix': 1.0, 'segments': 0.0},
        {'prefix': 0.0, 'segments': 1.0, 'most_segments': 3},
        {'prefix': 0.0, 'segments': 0.0, 'piece': 1.0, 'least': 0.0},
    ],
)
def test_rows_have_something_hidden_alone_padded_and_in_any_batch(shares):
  gaps = gaps_lib.Gaps(**shares)
  lengths = np.arange(ROWS // 10) % (F + 1)
  found = _draw(gaps, lengths)
  np.testing.assert_array_equal(found.any(1), lengths > 0)
  assert not (found & (np.arange(F) >= lengths[:, None])).any()
  padded = _draw(gaps, lengths, F + 7)
  np.testing.assert_array_equal(padded[:, :F], found)
  assert not padded[:, F:].any()
  alone = _draw(gaps, lengths[30:31], int(lengths[30]), first=30)
  np.testing.assert_array_equal(alone[0], found[30, : lengths[30]])


def test_more_than_all_rows_are_refused():
  with pytest.raises(config.ConfigError, match='more than all rows'):
    gaps_lib.Gaps(prefix=0.6, segments=0.6)
  with pytest.raises(config.ConfigError, match='piece = 0.5: more than all'):
    gaps_lib.Gaps(prefix=0.3, segments=0.3, piece=0.5)


def test_what_would_do_nothing_is_refused():
  for changes in ({'segments': 0.0, 'most_segments': 2}, {'least': 0.5}):
    *_, name = changes
    with pytest.raises(config.ConfigError, match=f'{name} = .* does nothing'):
      gaps_lib.Gaps(**changes)
