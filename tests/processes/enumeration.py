"""Small joint distributions of codes, of which everything is known."""

import itertools

import numpy as np


class Joint:
  """A distribution of L codes of V values.

  Attributes:
    codes: [V^L, L] all sequences.
    prob: [V^L] theirs.
    masks: [2^L, L] all sets of hidden places.
  """

  def __init__(self, table):
    self.table = table
    self.length, self.vocabulary = table.ndim, table.shape[0]
    values = range(self.vocabulary)
    self.codes = np.array(list(itertools.product(values, repeat=self.length)))
    self.prob = table.ravel()
    self.masks = np.array(
        list(itertools.product([False, True], repeat=self.length))
    )

  @property
  def entropy(self):
    """In nats."""
    return -np.sum(self.prob * np.log(self.prob))

  def log_prob(self, mask):
    """[V^L, L]: log p of each hidden code given those that are not, else 0."""
    hidden = tuple(np.flatnonzero(mask))
    seen = self.table.sum(hidden, keepdims=True)
    result = np.zeros((self.length, *self.table.shape))
    for place in hidden:
      others = tuple(p for p in hidden if p != place)
      result[place] = np.log(self.table.sum(others, keepdims=True) / seen)
    return np.moveaxis(result, 0, -1).reshape(-1, self.length)

  def everything(self):
    """(log_prob, masked), [2^L V^L, L], and the sequences' probabilities."""
    log_prob = np.concatenate([self.log_prob(m) for m in self.masks])
    masked = np.repeat(self.masks, len(self.codes), axis=0)
    return log_prob, masked, np.tile(self.prob, len(self.masks))

  def logits(self):
    """[(V + 1)^L, L, V] of every sequence in which V stands for the mask."""
    size = self.vocabulary
    result = np.zeros((size + 1,) * self.length + (self.length, size))
    for seen in itertools.product(range(size + 1), repeat=self.length):
      index = tuple(slice(None) if c == size else slice(c, c + 1) for c in seen)
      part = self.table[index]
      for place in range(self.length):
        others = tuple(p for p in range(self.length) if p != place)
        marginal = part.sum(others)
        if len(marginal) == size:
          result[seen][place] = np.log(marginal)
    return result.reshape(-1, self.length, size)

  def sampled(self, keep):
    """[V^L] the distribution of codes sampled in steps.

    Args:
      keep: shares of codes that are shown, from 0 to 1: one more than steps.
    """
    # Of each mask: the probability that what is hidden is drawn as it is.
    after = np.zeros((len(self.masks), len(self.codes)))
    after[~self.masks.any(1)] = 1
    for a, b in reversed(list(itertools.pairwise(keep))):
      reveal = (b - a) / (1 - a)
      before = np.zeros_like(after)
      for i, mask in enumerate(self.masks):
        log_prob = self.log_prob(mask)
        for j, rest in enumerate(self.masks):
          if (rest & ~mask).any():
            continue
          shown = mask & ~rest
          chance = reveal ** shown.sum() * (1 - reveal) ** rest.sum()
          before[i] += chance * np.exp(log_prob[:, shown].sum(1)) * after[j]
      after = before
    return after[-1]


def markov(transition, length):
  """A stationary chain."""
  values, vectors = np.linalg.eig(transition.T)
  first = np.real(vectors[:, np.argmax(np.real(values))])
  table = first / first.sum()
  for _ in range(length - 1):
    table = table[..., None] * transition
  return Joint(table)


def random(vocabulary, length, seed=0):
  """Any distribution."""
  weights = np.random.default_rng(seed).gamma(0.5, size=vocabulary**length)
  weights = weights + 1e-3
  return Joint((weights / weights.sum()).reshape((vocabulary,) * length))
