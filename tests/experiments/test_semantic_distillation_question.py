"""The question of distillation: in what its arms differ, and how it is measured."""

import pytest

from audiolm_jax import config
from audiolm_jax.lab import answering
from experiments import semantic_distillation


@pytest.fixture(
    scope='module',
    params=[
        (budget, variant)
        for budget in ('smoke', 'cpu')
        for variant in semantic_distillation.VARIANTS
    ],
    ids='-'.join,
)
def planned(request):
  return answering.plan(semantic_distillation.question(*request.param))


def _paths(planned, arm):
  return {line.partition(':')[0] for line in planned.differences[arm]}


def test_arms_differ_in_teacher_and_split_alone(planned):
  weight = 'tokenizer.objective.distillation.weight'
  features = 'tokenizer.data.features'
  for arm in ('residual_1', 'residual_10'):
    assert _paths(planned, arm) == {weight}
  assert _paths(planned, 'residual_10_others') == {weight, features}
  split = _paths(planned, 'split')
  assert all('.bottleneck.' in path for path in split)
  assert _paths(planned, 'split_10') == split | {weight}
  # Nothing that is spent differs by 2%.
  assert not planned.mismatches


def test_a_split_quantiser_is_the_residual_one_but_for_its_first_level(planned):
  stages = {arm.name: arm.stage for arm in planned.question.arms}
  rvq, split = (
      stages[name].config.objective.tokenizer.bottleneck
      for name in ('residual', 'split')
  )
  part = split.parts['acoustic']
  assert config.replace(part, {'codebooks': 8}) == rvq
  assert split.parts['semantic'].codebooks == 1


def test_no_language_model_reads_more_than_the_first_code(planned):
  for arm in planned.question.arms:
    chain = planned.question.test(arm.stage).chain
    assert chain['lm'].config.objective.decoder.vocabularies == (1024,)
    assert chain['lm'].inputs[0].inputs == (arm.stage,)
    world = planned.question.variant == 'speech_world'
    evaluators = chain['codec'].evaluators
    for probe in ('phones', 'speaker') if world else ():
      assert evaluators[probe].of.codebooks == 1
    assert evaluators['codec'].judges == (() if world else ('wer',))


def test_all_share_one_teacher(planned):
  chains = [arm.stage.chain for arm in planned.question.arms]
  for name in ('teacher', 'teaching', 'corpus'):
    assert len({chain[name].key for chain in chains}) == 1
