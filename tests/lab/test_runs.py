"""Sweeps with bracketing, replicates, and what is kept of them."""

import dataclasses
import re

import pytest

from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import stages
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.training import locks
from tests.lab import fake


def run(question, path, **options):
  said = []
  lab = runner.Lab(path)
  it = runs_lib.Running(question, lab, say=said.append, **options)
  return it, it.run(), said


def with_best(question, name, best):
  """The question with another best rate of an arm."""
  arms = [
      dataclasses.replace(arm, stage=dataclasses.replace(arm.stage, best=best))
      if arm.name == name
      else arm
      for arm in question.arms
  ]
  return dataclasses.replace(question, arms=tuple(arms))


def test_each_arm_gets_its_best_point_and_all_seeds(tmp_path):
  question = with_best(fake.question({'a': 0.0, 'b': 1.0}), 'b', 2.0)
  question = dataclasses.replace(question, most_added=0)
  it, chosen, _ = run(question, tmp_path)
  assert chosen['a'].chosen == {'rate': 1.0} and not chosen['a'].at_edge
  assert chosen['b'].chosen == {'rate': 2.0} and chosen['b'].at_edge
  results = runs_lib.metrics(it, {k: s.chosen for k, s in chosen.items()})
  assert {arm: list(seeds) for arm, seeds in results.items()} == {
      'a': [1, 2, 3],
      'b': [1, 2, 3],
  }
  value = results['b'][2]['result']['metrics']['loss']
  assert value == pytest.approx(1.0 + 0.01 * 4)


def test_a_sweep_goes_on_past_its_end_until_the_best_is_inside(tmp_path):
  question = with_best(fake.question({'a': 0.0, 'b': 1.0}), 'b', 8.0)
  _, chosen, _ = run(question, tmp_path)
  rates = [point['rate'] for point in chosen['b'].points]
  assert rates == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
  assert chosen['b'].chosen == {'rate': 8.0} and not chosen['b'].at_edge
  assert len(chosen['a'].points) == 3
  down = with_best(fake.question({'a': 0.0}), 'a', 0.25)
  _, chosen, _ = run(down, tmp_path / 'down')
  assert chosen['a'].chosen == {'rate': 0.25}


def test_the_largest_may_be_the_best(tmp_path):
  question = fake.question({'a': 0.0}, mode='max', most_added=0)
  _, chosen, _ = run(question, tmp_path)
  assert chosen['a'].chosen == {'rate': 2.0}  # The farthest from the best.


def test_several_fields_are_swept_together(tmp_path):
  arm = questions.Arm(
      'a',
      fake.Fake(name='model', inputs=(fake.Fake(name='data'),)),
      grid={'rate': (0.5, 1.0, 2.0), 'data:effect': (1.0, 2.0)},
  )
  assert len(arm.points()) == 6
  stage = arm.at({'rate': 2.0, 'data:effect': 2.0}, {'model': 7})
  assert stage.rate == 2.0 and stage.seed == 7
  assert stage.chain['data'].effect == 2.0
  beyond = questions.beyond(arm.points(), {'rate': 2.0, 'data:effect': 1.0})
  assert beyond == {'rate': 4.0, 'data:effect': 1.0}
  inside = questions.beyond([{'a': x} for x in (1.0, 2.0, 4.0)], {'a': 2.0})
  assert inside is None
  # What is no number has no beyond.
  assert questions.beyond([{'a': 'x'}, {'a': 'y'}], {'a': 'y'}) is None


def test_an_arm_may_take_another_ones_choice(tmp_path):
  question = with_best(fake.question({'a': 0.0, 'b': 1.0}), 'a', 2.0)
  like = dataclasses.replace(question.arm('b'), grid={}, like='a')
  question = dataclasses.replace(
      question, arms=(question.arm('a'), like), most_added=1
  )
  it, chosen, _ = run(question, tmp_path)
  assert chosen['b'] == chosen['a'] and chosen['a'].chosen == {'rate': 2.0}
  # It was not swept.
  finished = list(tmp_path.glob('stages/validation-*/result.json'))
  assert len(finished) == len(chosen['a'].points)
  results = runs_lib.metrics(it, {k: s.chosen for k, s in chosen.items()})
  assert results['b'][1]['result']['metrics']['loss'] > 1


def test_no_finite_score_is_refused():
  assert questions.best({0: float('nan'), 1: 2.0, 2: 3.0}, 'min') == 1
  with pytest.raises(questions.QuestionError, match='no score'):
    questions.best({0: float('nan')}, 'min')


def test_seeds_of_the_sweep_are_not_reported(tmp_path):
  question = fake.question({'a': 0.0})
  assert question.SWEEP_SEED not in question.replicates
  model = question.model(question.arms[0], {'rate': 1.0}, 3)
  assert model.seed == 3


def test_the_base_is_measured_and_checkpoints_are_cleared(tmp_path):
  base = fake.Fake(name='base')
  question = fake.question({'a': 0.0}, base=base)
  it, chosen, said = run(question, tmp_path)
  assert it.lab.metrics(it.base)['loss'] == 0.0
  kept = list(tmp_path.glob('stages/model-*/checkpoints'))
  # Those of the first seed.
  assert len(kept) == 1
  assert str(question.model(question.arms[0], chosen['a'].chosen, 1).key)[
      :16
  ] in str(kept[0])
  # What was cleared is not needed again.
  _, again, told = run(question, tmp_path)
  assert again == chosen and not told
  assert 'stages left' in said[0] and 'min' in said[1]


def test_shards_answer_together(tmp_path):
  question = fake.question({'a': 0.0, 'b': 1.0})
  _, one, _ = run(question, tmp_path, shard=runner.Shard(0, 2))
  _, other, said = run(question, tmp_path, shard=runner.Shard(1, 2))
  assert one == other and not said


def test_a_metric_that_is_not_there_is_named(tmp_path):
  question = fake.question({'a': 0.0}, select='bits')
  with pytest.raises(questions.QuestionError, match="'bits'.*'loss'"):
    run(question, tmp_path)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'baseline': 'c'}, "'c'. are not arms"),
        ({'seeds': 0}, 'at least 1'),
        ({'contrasts': (('a', 'z'),)}, "'z'. are not arms"),
        (
            {'controls': (questions.Control('a', 'b', 'x', 'lower', ''),)},
            "about 'x'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
  with pytest.raises(questions.QuestionError, match=message):
    fake.question({'a': 0.0, 'b': 1.0}, **changes)


def test_only_takes_arms_and_the_contrasts_among_them():
  whole = fake.question(
      {'a': 0.0, 'b': 1.0, 'c': 2.0}, contrasts=(('b', 'a'), ('c', 'b'))
  )
  some = whole.only(['a', 'b'])
  assert [arm.name for arm in some.arms] == ['a', 'b']
  assert some.contrasts == (('b', 'a'),)
  with pytest.raises(questions.QuestionError, match="known: .'a', 'b', 'c'."):
    whole.only(['d'])
  with pytest.raises(questions.QuestionError, match="need .'a'."):
    whole.only(['b'])
  assert fake.question({'a': 0.0, 'b': 1.0}).pairs == (('b', 'a'),)


def test_descending_rates_are_refused():
  arm = questions.Arm('a', fake.Fake(name='model'), grid={'rate': (2.0, 1.0)})
  with pytest.raises(questions.QuestionError, match='ascending'):
    fake.question({'a': 0.0}, arms=(arm,))


def test_what_is_known_is_what_running_would_choose(tmp_path):
  """Nothing runs; arms whose sweep has not finished are not there."""
  question = with_best(fake.question({'a': 0.0, 'b': 1.0}), 'b', 8.0)
  lab = runner.Lab(tmp_path)
  quiet = runs_lib.Running(question, lab, say=lambda line: None)
  assert not quiet.known() and not list(tmp_path.glob('stages/*'))
  it, chosen, _ = run(question, tmp_path)
  assert quiet.known() == chosen
  # The last point that b's sweep went on to.
  last = it._validation(question.arm('b'), chosen['b'].points[-1])
  (lab.directory(last) / stages.RESULT).unlink()
  assert quiet.known() == {'a': chosen['a']}
  points = {name: sweep.chosen for name, sweep in quiet.known().items()}
  assert {arm for arm, _, _ in quiet.tests(points)} == {'a'}


def test_progress_counts_what_all_processes_have_left(tmp_path):
  """Not this process's share alone; stages at work elsewhere share the time."""
  question = fake.question({'a': 0.0, 'b': 1.0})
  _, _, said = run(question, tmp_path, shard=runner.Shard(1, 2))
  left = [int(re.search(r'(\d+) stages left', line)[1]) for line in said]
  # 6 points of sweeps and 6 replicates, each a model and what measures it.
  assert left == list(range(24, 0, -1))
  stage = fake.Fake(name='other')
  lab = runner.Lab(tmp_path)
  folder = tmp_path / 'locks' / stage.folder
  folder.mkdir(parents=True)
  assert lab.at_work([stage]) == 0
  with locks.hold(folder):
    assert lab.at_work([stage]) == 1
  assert lab.at_work([stage]) == 0
