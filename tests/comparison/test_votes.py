"""Strengths against closed forms and simulated listeners; what is refused."""

import itertools
import json
import math

import numpy as np
import pytest

from audiolm_jax.comparison import votes as votes_lib

LEFT, RIGHT, SAME = votes_lib.LEFT, votes_lib.RIGHT, votes_lib.SAME


def vote(left, right, answer, listener='ann', item='i', time='0'):
  return votes_lib.Vote(listener, 's', item, left, right, answer, time)


def two_arms(first, second, ties):
  answers = [LEFT] * first + [RIGHT] * second + [SAME] * ties
  return [vote('a', 'b', each, item=str(i)) for i, each in enumerate(answers)]


@pytest.mark.parametrize('ties', [0, 50])
def test_two_arms_have_a_closed_form(ties):
  fitted = votes_lib.strengths(two_arms(300, 100, ties))
  assert fitted.arms == ('a', 'b')
  # exp(s_a - s_b) = wins / losses, with ties or without; sum 0.
  assert fitted.strength[0] == pytest.approx(math.log(3) / 2, abs=0.003)
  assert sum(fitted.strength) == pytest.approx(0)
  # The log odds of decided votes vary as 1 / wins + 1 / losses.
  reach = 1.96 * math.sqrt(1 / 300 + 1 / 100) / 2
  assert fitted.high[0] - fitted.strength[0] == pytest.approx(reach, rel=0.01)
  assert (fitted.wins, fitted.ties, fitted.losses) == (
      (300, 100),
      (ties, ties),
      (100, 300),
  )
  assert 'one listener' in fitted.method and fitted.unbounded == ()


def test_swapped_sides_change_nothing():
  votes = two_arms(30, 10, 7)
  mirror = {LEFT: RIGHT, RIGHT: LEFT, SAME: SAME}
  swapped = [
      vote(v.right, v.left, mirror[v.answer], item=v.item) for v in votes
  ]
  plain, other = map(votes_lib.strengths, (votes, swapped))
  np.testing.assert_allclose(plain.strength, other.strength, atol=1e-5)
  assert plain.wins == other.wins


def test_ties_alone_and_wins_alone_stay_finite():
  same = votes_lib.strengths(two_arms(0, 0, 20))
  assert same.strength == pytest.approx((0, 0), abs=1e-6)
  won = votes_lib.strengths(two_arms(20, 0, 0))
  assert won.unbounded == ('a', 'b')
  assert 1 < won.strength[0] < 5 and math.isfinite(won.high[0])


def simulated(truth, listeners, items, seed, tie=0.5, own=0.0):
  """Each listener compares all pairs of each item once, with own tastes."""
  rng = np.random.default_rng(seed)
  votes = []
  arms = [f'arm {i}' for i in range(len(truth))]
  for who in range(listeners):
    taste = truth + own * rng.standard_normal(len(truth))
    for item in range(items):
      for i, j in itertools.combinations(range(len(truth)), 2):
        if rng.random() < 0.5:
          i, j = j, i
        weights = np.exp(
            [taste[i], taste[j], math.log(tie) + (taste[i] + taste[j]) / 2]
        )
        answer = rng.choice([LEFT, RIGHT, SAME], p=weights / weights.sum())
        votes.append(
            vote(arms[i], arms[j], str(answer), f'l{who}', f'item {item}')
        )
  return votes


def coverage(listeners, items, own, runs):
  truth = np.array([0.6, 0.1, -0.2, -0.5])
  inside = []
  for seed in range(runs):
    fitted = votes_lib.strengths(
        simulated(truth, listeners, items, seed, own=own)
    )
    for arm, low, high in zip(
        fitted.arms, fitted.low, fitted.high, strict=True
    ):
      inside.append(low <= truth[int(arm[-1])] <= high)
  return np.mean(inside)


def test_walds_intervals_cover_one_listeners_strengths():
  assert coverage(1, 12, 0.0, 100) == pytest.approx(0.95, abs=0.045)


def test_bootstrap_intervals_cover_what_many_listeners_think(monkeypatch):
  monkeypatch.setattr(votes_lib, '_RESAMPLES', 100)
  share = coverage(8, 6, 0.4, 8)
  print(f'coverage of 8 listeners with tastes of their own: {share:.3f}')
  assert share >= 0.88


def test_strengths_are_recovered():
  truth = np.array([0.6, 0.1, -0.2, -0.5])
  votes = simulated(truth, 1, 300, 3)
  fitted = votes_lib.strengths(votes)
  assert fitted.arms == ('arm 0', 'arm 1', 'arm 2', 'arm 3')
  np.testing.assert_allclose(fitted.strength, truth, atol=0.1)


def test_arms_that_no_vote_connects_are_said():
  votes = [vote('a', 'b', LEFT), vote('c', 'd', SAME), vote('d', 'e', LEFT)]
  with pytest.raises(
      votes_lib.VotesError, match=r'no votes compare \[a, b\] with \[c, d, e\]'
  ):
    votes_lib.strengths(votes)
  with pytest.raises(votes_lib.VotesError, match='there are no votes'):
    votes_lib.strengths([])


def test_repeats_rings_and_sides_are_counted():
  votes = [
      vote('a', 'b', LEFT, time='1'),
      vote('b', 'a', RIGHT, time='2'),  # a again.
      vote('b', 'c', LEFT, time='3'),
      vote('c', 'a', RIGHT, time='4'),
      vote('a', 'c', RIGHT, time='5'),  # Now c.
      vote('a', 'b', SAME, 'bob', time='6'),
  ]
  count = votes_lib.count(votes)
  assert (count.repeats, count.changed, count.circles) == (2, 1, 1)
  assert [v.time for v in count.votes] == ['2', '3', '5', '6']
  assert count.left == pytest.approx(2 / 5)
  low, high = count.left_interval
  assert low < 0.4 < high
  assert math.isnan(votes_lib.count(votes[-1:]).left)
  biased = votes_lib.count(two_arms(40, 2, 0))
  assert biased.left_interval[0] > 0.5


def content(votes, report='abc', listener='ann'):
  fields = ('section', 'item', 'left', 'right', 'answer', 'time')
  return {
      'format': 1,
      'report': report,
      'listener': listener,
      'votes': [{name: getattr(v, name) for name in fields} for v in votes],
  }


def saved(tmp_path, name, data):
  path = tmp_path / name
  path.write_text(data if isinstance(data, str) else json.dumps(data))
  return path


def test_a_later_save_of_the_same_votes_adds_only_the_new(tmp_path):
  votes = [vote('a', 'b', LEFT, time='1'), vote('a', 'b', LEFT, item='j')]
  first = saved(tmp_path, '1.json', content(votes[:1]))
  second = saved(tmp_path, '2.json', content(votes))
  other = saved(tmp_path, '3.json', content(votes[:1], listener='bob'))
  report, found = votes_lib.read([first, second, other])
  assert report == 'abc' and len(found) == 3
  assert {v.listener for v in found} == {'ann', 'bob'}


@pytest.mark.parametrize(
    'data, message',
    [
        ('{', 'no file of votes'),
        ('[]', 'no file of votes'),
        ({'format': 2}, 'format 2, not 1'),
        (
            {'format': 1, 'report': 'abc'},
            "no file of votes: KeyError.'listener",
        ),
        (content([vote('a', 'b', 'A')]), 'a vote that is none'),
        (content([vote('a', 'a', LEFT)]), 'a vote that is none'),
        (content([vote('a', 3, LEFT)]), 'a vote that is none'),
        (content([], report='xyz'), 'about report xyz, not abc'),
    ],
)
def test_files_that_cannot_be_counted_are_refused(tmp_path, data, message):
  path = saved(tmp_path, 'bad.json', data)
  with pytest.raises(votes_lib.VotesError, match=message):
    votes_lib.read([path], 'abc')
