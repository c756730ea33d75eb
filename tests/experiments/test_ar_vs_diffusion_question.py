"""Autoregression against diffusion: in what arms differ, and how each is drawn."""

import pytest

from audiolm_jax import config
from audiolm_jax.lab import answering
from experiments import ar_vs_diffusion
from experiments import speech


@pytest.fixture(
    scope='module',
    params=[
        (budget, variant)
        for budget in ('smoke', 'cpu')
        for variant in ar_vs_diffusion.VARIANTS
    ],
    ids='-'.join,
)
def planned(request):
  return answering.plan(ar_vs_diffusion.question(*request.param))


def _settings(planned, arm):
  return planned.question.arm(arm).stage.config


def test_what_draws_and_how_much_there_is_to_learn_from_differ_alone(planned):
  def paths(arm):
    lines = planned.differences[arm]
    return {line.partition(':')[0].removeprefix('lm.') for line in lines}

  assert paths('ar_few') == {'data.limit'}
  assert paths('masked_few') == paths('masked') | {'data.limit'}
  assert {path.partition('.')[0] for path in paths('masked')} == {'objective'}
  assert {path.partition('.')[0] for path in paths('flow')} == {
      'objective',
      'data',
      'models',
  }
  blocks = [
      _settings(planned, arm).objective.decoder.backbone
      for arm in ('ar', 'masked', 'flow')
  ]
  alike = {
      'mixers[0].mask_kind': 'causal',
      'adaptive': 'none',
      'film_silu': False,
  }
  assert len({config.replace(block, alike) for block in blocks}) == 1
  assert len({stage.chain['tokenizer'].key for stage in _stages(planned)}) == 1
  for name in ('batch_size', 'steps'):
    assert len({getattr(s.config, name) for s in _stages(planned)}) == 1


def _stages(planned):
  return [arm.stage for arm in planned.question.arms]


def test_all_are_drawn_and_judged_alike(planned):
  question = planned.question
  world = question.variant == speech.WORLD.name
  for arm in question.arms:
    stage = question.test(arm.stage)
    drawn = stage.evaluators['drawn']
    assert (drawn.judge is not None) == world == drawn.joined
    assert (drawn.codebooks, drawn.steps) == {
        'ar': (None, ()),
        'masked': (None, drawn.steps),
        'flow': (4, drawn.steps),
    }[arm.name.partition('_')[0]]
    assert bool(drawn.steps) == (not arm.name.startswith('ar'))
    # Nobody learns from what is tested.
    assert drawn.clips.split == 'test'
    assert ('test' in stage.evaluators) == (arm.name != 'flow')
  sides = {o.name: o.of for o in question.outcomes}
  assert 'flow' not in sides['bits'] and not sides['frechet']


def test_what_there_is_to_hear_is_drawn_in_as_many_steps(planned):
  question = planned.question
  for arm in question.arms:
    asked = question.listen(arm.stage).values()['arguments']
    drawn = question.test(arm.stage).evaluators['drawn']
    assert tuple(asked['steps']) == drawn.steps
    assert asked['codebooks'] == drawn.codebooks
