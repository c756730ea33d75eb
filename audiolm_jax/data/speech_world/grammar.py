"""Probabilistic context-free grammars whose entropies are known exactly.

A symbol that has rules is a nonterminal; any other is a word. Rules are not
empty and have no cycle of single symbols, so every string has finitely many
derivations. Entropies are of derivations: those of strings only if no string
has two (`derivations` counts them).
"""

from collections.abc import Mapping, Sequence
import functools
import math

from jaxtyping import Float
import numpy as np

from audiolm_jax import config

Rule = tuple[float, tuple[str, ...]]


class Grammar:
  """A grammar: its entropy, and probabilities and samples of strings.

  Attributes:
    rules: nonterminal -> its rules, (probability, symbols) each.
    start: the nonterminal of a whole string.
  """

  def __init__(self, rules: Mapping[str, Sequence[Rule]], start: str = 'S'):
    """Takes probabilities that sum to one for each nonterminal.

    Raises:
      ConfigError: naming the rule, if they do not; for an empty rule, a cycle
        of single symbols, and a grammar whose strings do not end.
    """
    self.rules = {name: list(each) for name, each in rules.items()}
    self.start = start
    self._names = list(self.rules)
    if start not in self.rules:
      raise config.ConfigError(f'the start {start!r} has no rule')
    for name, each in self.rules.items():
      probabilities = [p for p, _ in each]
      if min(probabilities, default=0) <= 0 or not math.isclose(
          sum(probabilities), 1, abs_tol=1e-9
      ):
        raise config.ConfigError(
            f'rules of {name!r} have probabilities {probabilities}: all must be'
            ' above 0, and their sum 1'
        )
      if any(not symbols for _, symbols in each):
        raise config.ConfigError(f'{name!r} has an empty rule')
    self._order('one symbol', lambda symbols: symbols[:1] * (len(symbols) == 1))
    self._choices = {
        name: (np.cumsum([p for p, _ in each]), [s for _, s in each])
        for name, each in self.rules.items()
    }
    radius = np.abs(np.linalg.eigvals(self._expected(self._names))).max()
    if radius >= 1:
      raise config.ConfigError(
          f'strings do not end: the spectral radius is {radius:.3f}, not below'
          ' 1 (Booth and Thompson)'
      )

  def _order(self, what, reached):
    """Refuses a nonterminal that `reached` (a rule's symbols) leads back to."""
    seen = {}

    def visit(name):
      if name not in self.rules or seen.setdefault(name, 'open') == 'done':
        return
      for _, symbols in self.rules[name]:
        for symbol in reached(symbols):
          if seen.get(symbol) == 'open':
            raise config.ConfigError(
                f'{symbol!r} leads back to itself by rules of {what}'
            )
          visit(symbol)
      seen[name] = 'done'

    for name in self.rules:
      visit(name)

  def _expected(self, columns) -> np.ndarray:
    """[N, C] how often a rule of each nonterminal holds each column's symbol."""
    return np.array(
        [
            [
                sum(p * symbols.count(c) for p, symbols in self.rules[name])
                for c in columns
            ]
            for name in self._names
        ]
    )

  def _solve(self, rewards: Float[np.ndarray, ' N']) -> float:
    """Sum over a derivation from the start of what each nonterminal brings."""
    a = self._expected(self._names)
    total = np.linalg.solve(np.eye(len(a)) - a, rewards)
    return float(total[self._names.index(self.start)])

  @functools.cached_property
  def words(self) -> list[str]:
    """All words, sorted."""
    symbols = {s for r in self.rules.values() for _, rhs in r for s in rhs}
    return sorted(symbols - self.rules.keys())

  def entropy(self) -> float:
    """Bits of a derivation: (I - A)^-1 h at the start."""
    bits = [
        -sum(p * math.log2(p) for p, _ in self.rules[name])
        for name in self._names
    ]
    return self._solve(np.array(bits))

  def mean(self, value: Mapping[str, float] | None = None) -> float:
    """Mean over strings of the sum of a value a word.

    Args:
      value: word -> its value; None for 1, which gives the mean length.
    """
    values = [1.0 if value is None else value[word] for word in self.words]
    return self._solve(self._expected(self.words) @ np.array(values))

  def sample(self, rng: np.random.Generator) -> tuple[list[str], float]:
    """A string, and log2 of the probability of the derivation that made it."""
    words, log2p, stack = [], 0.0, [self.start]
    while stack:
      symbol = stack.pop()
      if symbol not in self._choices:
        words.append(symbol)
        continue
      edges, sides = self._choices[symbol]
      i = min(
          int(np.searchsorted(edges, rng.random(), 'right')), len(edges) - 1
      )
      log2p += math.log2(self.rules[symbol][i][0])
      stack.extend(reversed(sides[i]))
    return words, log2p

  def log2_probability(self, words: Sequence[str]) -> float:
    """log2 of a string's probability, by inside sums; -inf if it is none."""
    total = self._inside(tuple(words), lambda p: p)[0](
        (self.start,), 0, len(words)
    )
    return math.log2(total) if total else -math.inf

  def derivations(self, words: Sequence[str]) -> int:
    """How many derivations a string has; 0 if it is not in the language."""
    inside, _ = self._inside(tuple(words), lambda p: 1)
    return inside((self.start,), 0, len(words))

  def word_bits(self, words: Sequence[str]) -> Float[np.ndarray, ' n']:
    """Bits of each word given those before it, and at last of the end.

    They sum to minus the string's log2 probability. What no string continues
    with costs inf, and so does all that follows.

    Raises:
      ConfigError: for a grammar with left recursion.
    """
    self._order('that start with it', lambda symbols: symbols[:1])
    prefixes = [1.0]
    for n in range(1, len(words) + 1):
      _, begins = self._inside(tuple(words[:n]), lambda p: p)
      prefixes.append(begins((self.start,), 0))
    prefixes.append(2.0 ** self.log2_probability(words))
    bits = [
        math.log2(before / after) if after else math.inf
        for before, after in zip(prefixes, prefixes[1:], strict=False)
    ]
    return np.array(bits)

  def _inside(self, words, weigh):
    """(symbols, i, j) -> weight of words[i:j]; (symbols, i) -> of a prefix."""
    n = len(words)

    @functools.cache
    def inside(symbols, i, j):
      first, rest = symbols[0], symbols[1:]
      if j - i < len(symbols):
        return 0
      if rest:
        ends = range(i + 1, j - len(rest) + 1)
        if first not in self.rules:
          ends = ends[:1]
        return sum(
            left * inside(rest, k, j)
            for k in ends
            if (left := inside((first,), i, k))
        )
      if first not in self.rules:
        return int(j == i + 1 and words[i] == first)
      return sum(weigh(p) * inside(s, i, j) for p, s in self.rules[first])

    @functools.cache
    def begins(symbols, i):
      """The weight of all strings of `symbols` that begin with words[i:]."""
      first, rest = symbols[0], symbols[1:]
      if first in self.rules:
        total = sum(weigh(p) * begins(s, i) for p, s in self.rules[first])
      else:
        total = int(i == n - 1 and words[i] == first)
      if rest:
        for k in range(i + 1, n):
          if left := inside((first,), i, k):
            total += left * begins(rest, k)
      return total

    return inside, begins

  def lengths(self, symbol: str, most: int) -> Float[np.ndarray, ' n']:
    """[most + 1] the probability that a symbol becomes n words."""
    table = {name: np.zeros(most + 1) for name in self.rules}
    unit = np.eye(most + 1)[1] if most else np.zeros(1)

    # A string of n words has no part longer: after `most` rounds for nested
    # rules, times the longest chain of single symbols, nothing moves.
    for _ in range((most + 1) * len(self.rules)):
      old = {name: each.copy() for name, each in table.items()}
      for name, each in self.rules.items():
        table[name] = sum(p * _convolve(s, table, unit) for p, s in each)
      if all(np.array_equal(old[name], table[name]) for name in table):
        break
    return table.get(symbol, unit)


def _convolve(symbols, table, unit):
  total = np.eye(len(unit))[0]
  for symbol in symbols:
    total = np.convolve(total, table.get(symbol, unit))[: len(unit)]
  return total
