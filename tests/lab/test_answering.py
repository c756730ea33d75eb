"""From stages to claims: planted effects are found, planted nulls are not."""

import dataclasses
import json

import numpy as np
import pytest

from audiolm_jax.lab import answering
from audiolm_jax.lab import pages
from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import stages
from audiolm_jax.lab import runs as runs_lib
from tests.lab import fake


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy(fake.Fake):
  """With noise of its own, beside what a seed does to all arms."""

  def run(self, directory, inputs):
    rng = np.random.default_rng([self.seed, int(1000 * self.effect + 10_000)])
    metrics = super().run(directory, inputs)['metrics']
    return {'metrics': {'loss': metrics['loss'] + rng.normal(0, 0.01)}}


def planned(question, tags=None, differences=None):
  names = [arm.name for arm in question.arms]
  return answering.Plan(
      question,
      differences or {name: [] for name in names},
      {name: {'params': 1.0} for name in names},
      {},
      tags or dict.fromkeys(names, 'exact'),
  )


def answer(question, path, **options):
  it = runs_lib.Running(question, runner.Lab(path), say=lambda line: None)
  sweeps = it.run()
  said = answering.answer(planned(question, **options), it, sweeps)
  return it, sweeps, said.results


def noisy(effects, **changes):
  question = fake.question(effects, seeds=5, **changes)
  arms = [
      dataclasses.replace(
          arm, grid={}, stage=Noisy(name='model', effect=arm.stage.effect)
      )
      for arm in question.arms
  ]
  return dataclasses.replace(question, arms=tuple(arms))


OUTCOME = questions.Outcome(
    'loss', 'loss', 'nats', 'lower is better', margin=0.1
)
FOUND = questions.Control('c', 'a', 'loss', 'higher', 'it is planted')


def test_planted_effects_are_found_and_planted_nulls_are_not(tmp_path):
  question = noisy(
      {'a': 0.0, 'b': 0.001, 'c': 1.0},
      outcomes=(OUTCOME,),
      controls=(FOUND,),
  )
  _, _, results = answer(question, tmp_path)
  lines = results['comparisons']['loss']
  assert [(line['a'], line['reading']) for line in lines] == [
      ('b', 'equal'),
      ('c', 'different'),
      ('c', 'different'),
  ]
  assert lines[1]['mean'] == pytest.approx(1.0, abs=0.05)
  assert lines[2]['found']
  (verdict,) = results['verdict']
  higher = f'higher: c ({lines[1]["mean"]:+.3f})'
  assert verdict == (
      f'loss (nats): against a, {higher}; equal within 0.1: b. Positive control'
      f' found, c against a ({lines[2]["mean"]:+.3f}).'
  )
  assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_a_control_that_is_not_found_makes_it_insensitive(tmp_path):
  wrong = dataclasses.replace(FOUND, expected='lower')
  question = noisy({'a': 0.0, 'b': 0.0, 'c': 1.0}, controls=(wrong,))
  _, _, results = answer(question, tmp_path)
  same, other, control = results['comparisons']['loss']
  assert 'insensitive' in same['says'] and not control['found']
  # A difference that was found stands.
  assert 'higher by' in other['says']
  (verdict,) = results['verdict']
  assert 'higher: c (' in verdict and 'Positive control NOT found' in verdict
  assert 'insensitive (under ' in verdict and 'missed): b.' in verdict


def test_outcomes_are_differences_from_the_base_with_their_sign(tmp_path):
  gain = dataclasses.replace(OUTCOME, name='gain', sign=-1)
  question = noisy(
      {'a': 0.5, 'b': 0.2},
      base=fake.Fake(name='base', effect=1.0),
      outcomes=(gain,),
  )
  _, _, results = answer(question, tmp_path)
  for arm, effect in zip(results['arms'], (0.5, 0.2), strict=True):
    values = [run['values']['gain'] for run in arm['runs']]
    assert np.mean(values) == pytest.approx(1.0 - effect, abs=0.05)
  assert results['base']['gain'] == 1.0


@pytest.mark.parametrize('sign, sided', [(1, 'lower'), (-1, 'higher')])
def test_a_bound_beside_exact_bits_is_one_sided(tmp_path, sign, sided):
  """Below exact bits a bound wins; above them it says nothing."""
  bits = dataclasses.replace(OUTCOME, likelihood=True, sign=sign)
  question = noisy({'a': 0.0, 'b': 1.0, 'c': -1.0}, outcomes=(bits,))
  tags = {'a': 'exact', 'b': 'bound', 'c': 'bound'}
  _, _, results = answer(question, tmp_path, tags=tags)
  worse, better = results['comparisons']['loss']
  assert worse['sided'] == better['sided'] == sided
  assert worse['reading'] == 'undecided'
  assert better['reading'] == 'different'
  (verdict,) = results['verdict']
  assert 'no claim (under ' in verdict and 'missed): b.' in verdict
  plain = dataclasses.replace(question, outcomes=(OUTCOME,))
  _, _, results = answer(plain, tmp_path, tags=tags)
  assert results['comparisons']['loss'][0]['sided'] == 'both'


def test_what_is_missing_is_said_and_not_compared(tmp_path):
  question = noisy({'a': 0.0, 'b': 1.0})
  it, sweeps, whole = answer(question, tmp_path)
  assert whole['missing'] == 0
  points = {name: sweep.chosen for name, sweep in sweeps.items()}
  stage = [s for arm, seed, s in it.tests(points) if (arm, seed) == ('b', 2)]
  (it.lab.directory(stage[0]) / stages.RESULT).unlink()
  results = answering.answer(planned(question), it, sweeps).results
  assert results['missing'] == 1
  assert not results['comparisons']['loss']
  assert 'not measured yet' in results['verdict'][0]
  assert '1 of 10 runs are missing' in pages.markdown(results)
  assert 'Missing: b (seed 2).' in pages.markdown(results)


def test_a_likelihood_needs_one(tmp_path):
  del tmp_path
  bits = dataclasses.replace(OUTCOME, likelihood=True)
  question = fake.question({'a': 0.0}, outcomes=(bits,))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(answering, '_tag', lambda stage: 'none')
    patch.setattr(answering.budgets, 'of_arm', lambda *_: {})
    with pytest.raises(questions.QuestionError, match='have no likelihood'):
      answering.plan(question)


def test_an_outcome_may_be_of_some_arms_alone(tmp_path):
  some = dataclasses.replace(OUTCOME, name='bits', of=('a', 'b'))
  question = noisy({'a': 0.0, 'b': 1.0, 'c': 2.0}, outcomes=(OUTCOME, some))
  # c has no likelihood, and none is asked of it.
  _, _, results = answer(question, tmp_path)
  assert [x['a'] for x in results['comparisons']['bits']] == ['b']
  assert [x['a'] for x in results['comparisons']['loss']] == ['b', 'c']
  for arm in results['arms']:
    for run in arm['runs']:
      assert ('bits' in run['values']) == (arm['name'] != 'c')
  # Without a value in the table, and without a point in the picture.
  text = pages.markdown(results)
  (row,) = [x for x in text.splitlines() if x.startswith('| c |')]
  assert row.split(' | ')[3] == '–'
  assert question.only(['a', 'c']).outcomes[1].of == ('a',)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
        answering,
        '_tag',
        lambda stage: {2.0: 'none'}.get(stage.effect, 'exact'),
    )
    patch.setattr(answering.budgets, 'of_arm', lambda *_: {})
    patch.setattr(answering.controls, 'check', lambda _: {})
    likely = dataclasses.replace(some, likelihood=True)
    answering.plan(dataclasses.replace(question, outcomes=(likely,)))
    everyone = dataclasses.replace(likely, of=())
    with pytest.raises(questions.QuestionError, match="'bits' cannot stand"):
      answering.plan(dataclasses.replace(question, outcomes=(everyone,)))
  with pytest.raises(questions.QuestionError, match='are not arms'):
    dataclasses.replace(
        question, outcomes=(dataclasses.replace(some, of=('d',)),)
    )
  about = questions.Control('c', 'a', 'bits', 'higher', 'it is planted')
  with pytest.raises(questions.QuestionError, match="which 'c' has not"):
    dataclasses.replace(question, controls=(about,))


def test_a_readme_gets_its_results_and_keeps_the_rest(tmp_path):
  question = noisy({'a': 0.0, 'b': 1.0})
  _, _, results = answer(question, tmp_path)
  begin, end = pages.marks()
  readme = f'# Title\n\n{begin}\nold\n{end}\n\nMeaning.\n'
  text = pages.with_results(readme, results)
  assert 'old' not in text and text.startswith('# Title')
  assert text.endswith('\n\nMeaning.\n') and 'loss: b − a' in text
  assert pages.with_results(text, results) == text
  with pytest.raises(ValueError, match='to write between'):
    pages.with_results('# Title\n', results)
  # Those of another corpus have a part of their own.
  other = {**results, 'variant': 'moon', 'title': 'Elsewhere'}
  with pytest.raises(ValueError, match='results moon: begin'):
    pages.with_results(text, other)
  both = pages.with_results(text + '\n'.join(pages.marks('moon')), other)
  assert both.startswith(text) and both.count('loss: b − a') == 2


def test_the_map_has_status_and_verdict(tmp_path):
  question = noisy({'a': 0.0, 'b': 1.0})
  _, _, results = answer(question, tmp_path / 'lab')
  for name in ('asked', 'answered'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').touch()
  path = tmp_path / 'answered' / answering.results_name()
  path.write_text(json.dumps(results))
  table = pages.overview(
      {'open': 'what?', 'asked': 'why?', 'answered': 'how?'}, tmp_path
  ).splitlines()
  assert table[2].startswith('| open | what? |') and '| open |' in table[2]
  assert '| not run |' in table[3]
  assert '| answered |' in table[4] and 'against a, higher: b (' in table[4]
  assert 'moon' not in table[4]
  path = tmp_path / 'answered' / answering.results_name('moon')
  path.write_text(json.dumps({**results, 'variant': 'moon'}))
  table = pages.overview(
      {'open': 'what?', 'asked': 'why?', 'answered': 'how?'}, tmp_path
  ).splitlines()
  assert table[4].count('against a, higher: b (') == 2
  assert '| 2, 2 | answered |' in table[4] and ' moon: loss' in table[4]
  # A variant that a README has a place for is still to be asked.
  for variants, state in (
      (('', 'moon'), '| answered |'),
      (('', 'moon', 'sun'), '| answered in part |'),
  ):
    places = '\n'.join(m for v in variants for m in pages.marks(v))
    (tmp_path / 'answered' / 'README.md').write_text(places)
    table = pages.overview(
        {'open': 'what?', 'asked': 'why?', 'answered': 'how?'}, tmp_path
    ).splitlines()
    assert state in table[4]
  with pytest.raises(ValueError, match="lacks .'answered'."):
    pages.overview({}, tmp_path)


def test_the_page_says_what_was_at_the_edge(tmp_path):
  question = fake.question({'a': 0.0, 'b': 1.0}, mode='max', most_added=0)
  it, sweeps, results = answer(question, tmp_path)
  said = answering.answer(planned(question), it, sweeps)
  assert all(arm['at_edge'] for arm in results['arms'])
  pages.report(said, 'text', it, sweeps).write(tmp_path / 'report.html')
  page = (tmp_path / 'report.html').read_text()
  assert 'At the edge of what was tried: a, b' in page
  assert 'Sweeps' in page
