"""What was said beside what was heard: edit distances and words from phones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Errors(NamedTuple):
  """The edits that make what was said into what was heard.

  Attributes:
    substitutions: symbols that were heard as another one.
    deletions: symbols that were not heard.
    insertions: symbols that were heard and not said.
    length: symbols that were said.
  """

  substitutions: int
  deletions: int
  insertions: int
  length: int

  @property
  def total(self) -> int:
    """The edit distance (Levenshtein 1966)."""
    return self.substitutions + self.deletions + self.insertions

  @property
  def by_kind(self) -> dict[str, int]:
    """Edits of each kind."""
    names = ('substitutions', 'deletions', 'insertions')
    return {name: getattr(self, name) for name in names}


def align(said: Sequence[Any], heard: Sequence[Any]) -> Errors:
  """The fewest edits between two sequences.

  Of several ways with as few edits, the one with most substitutions counts, so
  that the result depends on nothing else.
  """
  # (edits, deletions + insertions, deletions) from `said[:i]` to each
  # `heard[:j]`, compared in this order.
  row = [(j, j, 0) for j in range(len(heard) + 1)]
  for i, symbol in enumerate(said, 1):
    before, row = row, [(i, i, i)]
    for j, other in enumerate(heard, 1):
      edits, gaps, gone = before[j - 1]
      best = edits + (symbol != other), gaps, gone
      edits, gaps, gone = before[j]
      best = min(best, (edits + 1, gaps + 1, gone + 1))
      edits, gaps, gone = row[j - 1]
      row.append(min(best, (edits + 1, gaps + 1, gone)))
  edits, gaps, gone = row[-1]
  return Errors(edits - gaps, gone, gaps - gone, len(said))


class Lexicon:
  """Words by their phones: the words that are nearest to what was heard."""

  def __init__(self, words: Mapping[str, Sequence[str]]):
    """Takes word -> its phones.

    Raises:
      ValueError: for a word without phones, or no words.
    """
    if not words or not all(words.values()):
      raise ValueError('a lexicon needs words, and each of them a phone')
    self._names = list(words)
    lengths = np.array([len(phones) for phones in words.values()])
    # By length, so that a phone of all words of a group is one column.
    self._groups = []
    for length in np.unique(lengths):
      members = np.flatnonzero(lengths == length)
      spelled = [words[self._names[i]] for i in members]
      self._groups.append((members, np.array(spelled, dtype=object)))

  def words(self, phones: Sequence[str]) -> tuple[list[str], int]:
    """The words whose phones are nearest to some, and how many edits away.

    One pass over all words (Vintsyuk 1971): exact, no word is given up on the
    way. No word is likelier than another; of ways with as few edits, that of
    fewest words counts, then the first in the lexicon's order.

    Args:
      phones: what was heard, silence left out.
    """
    n = len(phones)
    edit = n + 1  # More than all words together.
    tables = []
    for _, spelled in self._groups:
      count, length = spelled.shape
      costs = edit * np.arange(length + 1)[None].repeat(count, axis=0)
      tables.append((costs, np.zeros_like(costs)))
    ends = [(0, 0, 0)]  # Of each beginning: its cost, last word's start, word.
    for j, phone in enumerate(phones, 1):
      tables = [
          _advance(spelled == phone, *table, edit)
          for (_, spelled), table in zip(self._groups, tables, strict=True)
      ]
      found = []
      for (members, _), (costs, starts) in zip(
          self._groups, tables, strict=True
      ):
        row = int(costs[:, -1].argmin())
        found.append((int(costs[row, -1]) + 1, int(members[row]), row, starts))
      cost, word, row, starts = min(found, key=lambda each: each[:2])
      ends.append((cost, int(starts[row, -1]), word))
      for costs, starts in tables:
        fresh = cost + edit * np.arange(costs.shape[1])
        starts[fresh < costs] = j
        np.minimum(costs, fresh, out=costs)
    words, end = [], n
    while end:
      _, end, word = ends[end]
      words.append(self._names[word])
    return words[::-1], ends[n][0] // edit


def _advance(same, costs, starts, edit):
  """Costs and starts of all words' beginnings after one more phone.

  Args:
    same: [W, L] whether that phone is the word's.
    costs: [W, L + 1] before it.
    starts: [W, L + 1] where the word began, at best.
    edit: what one costs.
  """
  after, began = costs + edit, starts.copy()
  for i in range(1, costs.shape[1]):
    for cost, start in (
        (costs[:, i - 1] + edit * ~same[:, i - 1], starts[:, i - 1]),
        (after[:, i - 1] + edit, began[:, i - 1]),
    ):
      better = cost < after[:, i]
      after[better, i] = cost[better]
      began[better, i] = start[better]
  return after, began
