"""Votes of blind tests, and what arms' strengths they speak for.

Davidson's model of pairs with ties (1970), a Bradley-Terry model where no vote
is a tie: with strengths s, P(i over j) is proportional to exp(s_i), P(j over i)
to exp(s_j), and P(tie) to nu exp((s_i + s_j) / 2). It is fitted by maximum
likelihood with a faint normal prior (standard deviation 4) on strengths, which
only counts where an arm won or lost everything: its strength would be infinite.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
import os
import pathlib

from jaxtyping import Float
import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats

LEFT, RIGHT, SAME = 'left', 'right', 'same'
_FORMAT = 1
_FIELDS = ('section', 'item', 'left', 'right', 'answer', 'time')
_PRIOR = 4.0
_RESAMPLES = 400


class VotesError(ValueError):
  """A file of votes that cannot be counted."""


@dataclasses.dataclass(frozen=True)
class Vote:
  """One answer.

  Attributes:
    listener: who.
    section: of the report.
    item: what was said.
    left: the arm on side A.
    right: the arm on side B.
    answer: `LEFT`, `RIGHT` or `SAME`.
    time: when, in ISO 8601.
  """

  listener: str
  section: str
  item: str
  left: str
  right: str
  answer: str
  time: str

  @property
  def trial(self) -> tuple:
    """What was asked, whichever way round."""
    pair = frozenset((self.left, self.right))
    return self.listener, self.section, self.item, pair

  @property
  def winner(self) -> str:
    """The arm that was preferred, '' for a tie."""
    return {LEFT: self.left, RIGHT: self.right, SAME: ''}[self.answer]


def read(
    paths: Sequence[str | os.PathLike], report: str | None = None
) -> tuple[str, list[Vote]]:
  """The votes of several files about one report, each vote once.

  Args:
    paths: files that reports' pages saved.
    report: id of the report that they must be about; None: of the first file.

  Returns:
    The report's id, and votes in the order of their times; those that are in
    several files (saved again later) come once.

  Raises:
    VotesError: naming a file that holds no votes, or those of another report.
  """
  votes = set()
  for path in paths:
    try:
      content = json.loads(pathlib.Path(path).read_bytes())
      if content['format'] != _FORMAT:
        raise VotesError(f'{path}: format {content["format"]}, not {_FORMAT}')
      about, listener = content['report'], content['listener']
      found = [
          Vote(listener, *[vote[name] for name in _FIELDS])
          for vote in content['votes']
      ]
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as e:
      raise VotesError(f'{path} is no file of votes: {e!r}') from e
    for vote in found:
      texts = dataclasses.astuple(vote)
      if not all(isinstance(text, str) for text in texts) or (
          vote.answer not in (LEFT, RIGHT, SAME) or vote.left == vote.right
      ):
        raise VotesError(f'{path} has a vote that is none: {vote}')
    report = report or about
    if about != report:
      raise VotesError(
          f'{path} is about report {about}, not {report}: its page had other'
          ' sounds'
      )
    votes.update(found)
  return report or '', sorted(votes, key=lambda vote: vote.time)


@dataclasses.dataclass(frozen=True)
class Count:
  """Votes as numbers.

  Attributes:
    votes: that count: the last of each trial.
    repeats: trials that a listener answered more than once.
    changed: of these, with another winner in the end than at first.
    circles: listener and item where arms beat each other in a ring of three.
    left: share of the left side among answers that are no tie; NaN of none.
    left_interval: 95% of that share (Wilson).
  """

  votes: tuple[Vote, ...]
  repeats: int
  changed: int
  circles: int
  left: float
  left_interval: tuple[float, float]


def count(votes: Sequence[Vote]) -> Count:
  """Takes the last vote of each trial, and looks for what is inconsistent.

  Args:
    votes: in the order of their times.
  """
  trials: dict[tuple, list[Vote]] = {}
  for vote in votes:
    trials.setdefault(vote.trial, []).append(vote)
  last = tuple(each[-1] for each in trials.values())
  again = [each for each in trials.values() if len(each) > 1]
  decided = [vote for vote in votes if vote.answer != SAME]
  lefts = sum(vote.answer == LEFT for vote in decided)
  share, interval = math.nan, (math.nan, math.nan)
  if decided:
    share = lefts / len(decided)
    interval = tuple(
        stats.binomtest(lefts, len(decided)).proportion_ci(method='wilson')
    )
  return Count(
      last,
      len(again),
      sum(each[0].winner != each[-1].winner for each in again),
      _circles(last),
      share,
      tuple(map(float, interval)),
  )


@dataclasses.dataclass(frozen=True)
class Strengths:
  """What votes say of arms.

  Attributes:
    arms: in falling order of strength.
    strength: log odds to be preferred over an average arm, sum 0.
    low: lower ends of 95% intervals.
    high: upper ends.
    wins: votes for each arm.
    ties: votes of no difference.
    losses: votes for the other.
    method: what intervals span.
    unbounded: arms that won or lost everything, so that only the prior bounds
      their strength.
  """

  arms: tuple[str, ...]
  strength: tuple[float, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]
  wins: tuple[int, ...]
  ties: tuple[int, ...]
  losses: tuple[int, ...]
  method: str
  unbounded: tuple[str, ...]


def strengths(votes: Sequence[Vote], seed: int = 0) -> Strengths:
  """Strengths of the arms of one section, with intervals.

  With several listeners, intervals are percentiles of a bootstrap over listeners
  and items (each drawn again, a vote counts as often as both were: Owen 2007),
  which is wider than need be where neither matters. Those of one listener are
  Wald's: votes are taken as independent, and speak for that listener alone.

  Args:
    votes: of one section, each trial once.
    seed: of the bootstrap.

  Raises:
    VotesError: without votes, and where arms fall into groups that no vote
      compares, naming them.
  """
  arms = sorted({arm for vote in votes for arm in (vote.left, vote.right)})
  groups = _groups(votes, arms)
  if len(groups) != 1:
    raise VotesError(
        'no votes compare '
        + ' with '.join(f'[{", ".join(group)}]' for group in groups)
        if groups
        else 'there are no votes'
    )
  place = {arm: i for i, arm in enumerate(arms)}
  first = np.array([place[vote.left] for vote in votes])
  second = np.array([place[vote.right] for vote in votes])
  score = np.array(
      [{LEFT: 1, SAME: 0, RIGHT: -1}[vote.answer] for vote in votes]
  )
  data, size = (first, second, score), len(arms)
  fitted, covariance = _fit(*data, np.ones(len(votes)), size)
  listeners = sorted({vote.listener for vote in votes})
  if len(listeners) > 1:
    low, high = _bootstrap(votes, listeners, data, size, seed)
    method = f'bootstrap over {len(listeners)} listeners and their items'
  else:
    reach = stats.norm.ppf(0.975) * np.sqrt(np.diag(covariance))
    low, high = fitted - reach, fitted + reach
    method = 'Wald, for this one listener'
  return _ordered(votes, arms, (fitted, low, high), method)


def _ordered(votes, arms, numbers, method) -> Strengths:
  """Counts of each arm beside its strength and ends, strongest first."""
  fitted, low, high = numbers
  rows = []
  for i in np.argsort(-fitted, kind='stable'):
    part = [vote for vote in votes if arms[i] in (vote.left, vote.right)]
    wins = sum(vote.winner == arms[i] for vote in part)
    ties = sum(vote.answer == SAME for vote in part)
    ends = float(fitted[i]), float(low[i]), float(high[i])
    rows.append((arms[i], *ends, wins, ties, len(part) - wins - ties))
  unbounded = [
      arm
      for arm, *_, wins, ties, lost in rows
      if not ties and not (wins and lost)
  ]
  return Strengths(
      *zip(*rows, strict=True), method=method, unbounded=tuple(unbounded)
  )


def _fit(
    first, second, score, weight, size
) -> tuple[Float[np.ndarray, 'A'], Float[np.ndarray, 'A A']]:
  """Strengths with sum 0, and their covariance by the inverse of the Hessian.

  Parameters are strengths and log nu; scores are 1 (first), 0 (tie), -1.
  """
  tied = (weight * (score == 0)).sum() > 0
  won = np.stack([score == 1, score == -1, score == 0], 1) * weight[:, None]
  # How each outcome's logit hangs on the strengths of both, and on log nu.
  part = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 1]])

  def logits(values):
    both = np.stack([values[first], values[second]], 1)
    nu = values[-1] if tied else -np.inf
    return np.concatenate([both, both.mean(1, keepdims=True) + nu], 1)

  def loss(values):
    each = special.log_softmax(logits(values), axis=1)
    each = np.where(won > 0, each, 0.0)
    prior = (values[:-1] ** 2).sum() / (2 * _PRIOR**2)
    rest = (
        won.sum(1)[:, None] * np.exp(special.log_softmax(logits(values), 1))
    ) - won
    slope = rest @ part
    gradient = np.zeros(size + 1)
    np.add.at(gradient, first, slope[:, 0])
    np.add.at(gradient, second, slope[:, 1])
    gradient[:-1] += values[:-1] / _PRIOR**2
    # The tie parameter has a faint prior too: all votes may be ties.
    gradient[-1] = (slope[:, 2].sum() if tied else 0) + values[-1] / _PRIOR**2
    prior += values[-1] ** 2 / (2 * _PRIOR**2)
    return prior - (won * each).sum(), gradient

  best = optimize.minimize(loss, np.zeros(size + 1), jac=True, method='BFGS').x
  chance = special.softmax(logits(best), axis=1)
  hessian = np.eye(size + 1) / _PRIOR**2
  mean = chance @ part
  inner = np.einsum('no,op,oq->npq', chance, part, part)
  inner = inner - mean[:, :, None] * mean[:, None, :]
  inner *= won.sum(1)[:, None, None]
  at = np.stack([first, second, np.full_like(first, size)], 1)
  np.add.at(hessian, (at[:, :, None], at[:, None, :]), inner)
  centre = np.eye(size) - 1 / size
  covariance = np.linalg.inv(hessian)[:size, :size]
  return centre @ best[:size], centre @ covariance @ centre


def _bootstrap(votes, listeners, data, size, seed):
  """Ends of the percentile intervals of strengths."""
  items = sorted({vote.item for vote in votes})
  who = np.array([listeners.index(vote.listener) for vote in votes])
  what = np.array([items.index(vote.item) for vote in votes])
  rng = np.random.default_rng(seed)
  draws = []
  for _ in range(_RESAMPLES):
    people = rng.multinomial(
        len(listeners), [1 / len(listeners)] * len(listeners)
    )
    texts = rng.multinomial(len(items), [1 / len(items)] * len(items))
    weight = (people[who] * texts[what]).astype(np.float64)
    if weight.any():
      draws.append(_fit(*data, weight, size)[0])
  return np.quantile(draws, [0.025, 0.975], axis=0)


def _groups(votes, arms) -> list[list[str]]:
  """Arms that votes connect, directly or not."""
  group = {arm: {arm} for arm in arms}
  for vote in votes:
    if group[vote.left] is not group[vote.right]:
      merged = group[vote.left] | group[vote.right]
      group |= dict.fromkeys(merged, merged)
  return sorted({tuple(sorted(members)) for members in group.values()})


def _circles(votes) -> int:
  """Listener and item with a over b, b over c and c over a."""
  beats: dict[tuple, set] = {}
  for vote in votes:
    if vote.winner:
      other = vote.right if vote.winner == vote.left else vote.left
      beats.setdefault((vote.listener, vote.item), set()).add(
          (vote.winner, other)
      )
  return sum(
      any(
          (b, c) in pairs and (c, a) in pairs
          for a, b in pairs
          for _, c in pairs
      )
      for pairs in beats.values()
  )
