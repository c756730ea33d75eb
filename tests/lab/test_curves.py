"""Curves as outcomes: from stages to bands, fits, claims and the page."""

import dataclasses
import json

import numpy as np
import pytest

from audiolm_jax.comparison import trends
from audiolm_jax.lab import curves as curves_lib
from audiolm_jax.lab import pages
from audiolm_jax.lab import questions
from audiolm_jax.lab import answering
from audiolm_jax.lab import runner
from audiolm_jax.lab import stages
from audiolm_jax.lab import runs as runs_lib
from tests.lab import fake

X = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curved(fake.Fake):
  """Gives effect + 2 x^-0.5 at each x, and a little noise by seed."""

  def run(self, directory, inputs):
    result = super().run(directory, inputs)
    rng = np.random.default_rng([self.seed, int(1000 * self.effect)])
    curve = [[x, self.effect + 2 * x**-0.5 + rng.normal(0, 0.003)] for x in X]
    curves = {'loss by frame': curve}
    if self.effect > 1.2:  # Not every arm gives all.
      curves['other by x'] = [[1, self.effect]]
    return result | {'curves': curves}


def curved(effects, **changes):
  question = fake.question(effects, **changes)
  arms = [
      dataclasses.replace(
          arm, grid={}, stage=Curved(name='model', effect=arm.stage.effect)
      )
      for arm in question.arms
  ]
  return dataclasses.replace(question, arms=tuple(arms))


def answer(question, path, spent=None):
  names = [arm.name for arm in question.arms]
  spent = spent or {name: {'params': 1.0} for name in names}
  plan = answering.Plan(
      question, dict.fromkeys(names, []), spent, {}, dict.fromkeys(names, '')
  )
  it = runs_lib.Running(question, runner.Lab(path), say=lambda line: None)
  sweeps = it.run()
  return it, sweeps, answering.answer(plan, it, sweeps)


CURVE = curves_lib.Curve(
    'memory',
    'loss by frame',
    'frame',
    'nats',
    at=(1.0, 32.0),
    fit='power_law',
    log_x=True,
    margin=0.05,
)


def test_a_declared_curve_is_compared_and_fitted(tmp_path):
  question = curved({'a': 1.0, 'b': 1.5, 'c': 1.001}, curves=(CURVE,))
  it, sweeps, said = answer(question, tmp_path)
  curve, _ = said.results['curves']
  assert curve['missing'] == 0 and set(curve['bands']) == {'a', 'b', 'c'}
  for x, mean, low, high in curve['bands']['b']:
    assert low < mean < high
    assert mean == pytest.approx(1.5 + 2 * x**-0.5, abs=0.02)
  a, b, c = (m for m, *_ in curve['fits']['b']['parameters'].values())
  assert (a, b, c) == pytest.approx((1.5, 2.0, 0.5), abs=0.06)
  readings = {(c['a'], c['x']): c['reading'] for c in curve['comparisons']}
  assert readings == {
      ('b', 1.0): 'different',
      ('c', 1.0): 'equal',
      ('b', 32.0): 'different',
      ('c', 32.0): 'equal',
  }
  assert 'memory: b against a at 1: higher by' in said.results['verdict'][-1]
  results = said.results
  assert json.loads(json.dumps(results, allow_nan=False)) == results
  page = pages.report(said, 'text', it, sweeps)
  # It leads, after the verdict.
  section = page.data['sections'][0]
  kinds = [block['kind'] for block in section['blocks']]
  first = kinds.index('curves')
  assert set(kinds[:first]) == {'text'}
  chart, contrasts, fits = section['blocks'][first : first + 3]
  assert set(chart['series']) == {n + f for n in 'abc' for f in ('', ', fit')}
  assert set(chart['bands']) == set('abc') and chart['log_x']
  assert len(contrasts['rows']) == 4 and len(fits['rows']) == 3
  page.write(tmp_path / 'report.html')
  assert '| line | a | b | c |' in pages.markdown(results)


def test_what_tests_give_beside_is_drawn_and_claims_nothing(tmp_path):
  _, _, said = answer(curved({'a': 1.0, 'b': 1.5}), tmp_path)
  curve, other = said.results['curves']
  assert (curve['x'], curve['unit'], curve['log_x']) == ('frame', 'loss', True)
  assert curve['bands'] and not curve['comparisons'] and not curve['fits']
  assert list(other['points']) == ['b'] and not other['missing']
  some = dataclasses.replace(
      CURVE, source='other by x', of=('b',), at=(), fit=None
  )
  both = curved({'a': 1.0, 'b': 1.5}, curves=(some,))
  _, _, said = answer(both, tmp_path)
  declared, *_ = said.results['curves']
  assert list(declared['points']) == ['b'] and not declared['missing']
  assert not both.only(['a']).curves
  with pytest.raises(questions.QuestionError, match='are not arms'):
    dataclasses.replace(both, curves=(dataclasses.replace(some, of=('d',)),))
  assert len(said.results['verdict']) == 1


def test_arms_may_be_points_of_lines(tmp_path):
  """Two lines through three arms each; x is a number or what an arm spends."""
  effects = {f'{line}{n}': o - 0.1 * n for line, o in (('p', 1.0), ('q', 2.0))
             for n in (1, 2, 3)}  # fmt: skip
  along = {arm: (arm[0], float(2 ** int(arm[1]))) for arm in effects}
  by_n = curves_lib.Curve(
      'by n', 'loss', 'examples', 'nats', along=along, at=(2.0, 8.0),
      fit='log_linear',
  )  # fmt: skip
  by_params = dataclasses.replace(
      by_n,
      name='by size',
      along={arm: (line, 'params') for arm, (line, _) in along.items()},
      at=(),
      fit=None,
  )
  question = fake.question(effects, curves=(by_n, by_params), seeds=3)
  spent = {arm: {'params': 3.0 * float(arm[1])} for arm in effects}
  _, _, said = answer(question, tmp_path, spent)
  first, second = said.results['curves']
  assert [x for x, *_ in first['bands']['p']] == [2.0, 4.0, 8.0]
  means = [mean for _, mean, *_ in first['bands']['q']]
  assert np.diff(means) == pytest.approx([-0.1, -0.1])
  assert first['fits']['p']['parameters']['b'][0] == pytest.approx(-0.1)
  assert [c['mean'] for c in first['comparisons']] == pytest.approx([1.0, 1.0])
  assert [x for x, *_ in second['bands']['p']] == [3.0, 6.0, 9.0]
  some = question.only(('p1', 'p2', 'p3'))
  assert set(some.curves[0].along) == {'p1', 'p2', 'p3'}


def test_what_is_missing_is_counted_and_not_drawn(tmp_path):
  question = curved({'a': 1.0, 'b': 1.5}, curves=(CURVE,))
  it, sweeps, said = answer(question, tmp_path)
  points = {name: sweep.chosen for name, sweep in sweeps.items()}
  for arm, seed, stage in it.tests(points):
    path = it.lab.directory(stage) / stages.RESULT
    if (arm, seed) == ('b', 2):
      # As from before evaluators gave curves.
      facts = json.loads(path.read_text())
      del facts['result']['curves']
      path.write_text(json.dumps(facts))
  _, _, said = answer(question, tmp_path)
  curve, *_ = said.results['curves']
  assert curve['missing'] == 1 and set(curve['bands']) == {'a'}
  assert not curve['comparisons'] and not said.results['missing']
  page = pages.report(said, 'text', it, sweeps)
  text = json.dumps(page.data)
  assert 'memory: 1 measurements are missing' in text


def test_wrong_curves_are_refused(tmp_path):
  wrong = dataclasses.replace(CURVE, source='loss by second')
  with pytest.raises(curves_lib.CurveError, match="no 'loss by second'"):
    answer(curved({'a': 1.0, 'b': 1.5}, curves=(wrong,)), tmp_path)
  with pytest.raises(curves_lib.CurveError, match='expected one of'):
    dataclasses.replace(CURVE, fit='cubic')
  with pytest.raises(curves_lib.CurveError, match='one point of one line'):
    dataclasses.replace(CURVE, along={'a': ('l', 1.0), 'b': ('l', 1.0)})
  with pytest.raises(questions.QuestionError, match='are not arms'):
    stray = dataclasses.replace(CURVE, along={'nope': ('l', 1.0)})
    fake.question({'a': 0.0}, curves=(stray,))
  with pytest.raises(questions.QuestionError, match='of one name'):
    fake.question({'a': 0.0}, curves=(CURVE, CURVE))


def test_lines_measured_at_other_points_stand_alone():
  lines = {
      'a': {1: [(1.0, 1.0), (2.0, 2.0)], 2: [(1.0, 1.1), (2.0, 2.2)]},
      'b': {1: [(3.0, 1.0), (4.0, 2.0)], 2: [(3.0, 1.1), (4.0, 2.2)]},
  }
  plain = dataclasses.replace(CURVE, at=(), fit=None)
  bands = curves_lib.summary(plain, lines, 2, 2)['bands']
  alone = trends.curves({'a': lines['a']}).bands()['a']
  assert bands['a'] == [list(point) for point in alone]
  with pytest.raises(curves_lib.CurveError, match='at different frame'):
    curves_lib.summary(dataclasses.replace(plain, at=(1.0,)), lines, 2, 2)
