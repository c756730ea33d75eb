"""Arms differ in what is declared; budgets match, or are declared."""

import dataclasses

import pytest

from audiolm_jax import config
from audiolm_jax.lab import answering
from audiolm_jax.lab import budgets
from audiolm_jax.lab import controls
from audiolm_jax.lab import questions
from configs.lm import flow
from configs.lm import ladder
from configs.lm import latents
from experiments import template


@pytest.fixture(scope='module')
def question():
  return template.question('smoke')


def test_declared_differences_are_listed(question):
  lines = controls.check(question)
  assert lines['width_8'] == []
  assert lines['width_1'] == ['model.objective.width: 8 -> 1']


def test_an_undeclared_difference_is_refused_by_arm_and_field(question):
  other = question.arm('width_1')
  stage = other.stage.with_changes({'model': {'batch_size': 8}})
  changed = dataclasses.replace(
      question,
      arms=(question.arm('width_8'), dataclasses.replace(other, stage=stage)),
  )
  with pytest.raises(
      controls.Uncontrolled, match='width_1: model.batch_size: 16 -> 8'
  ):
    controls.check(changed)
  declared = {**question.differences, 'batch_size': 'to see'}
  assert controls.check(dataclasses.replace(changed, differences=declared))


def test_a_declaration_that_hides_nothing_is_refused(question):
  declared = {**question.differences, 'objective.noise': 'just in case'}
  with pytest.raises(controls.Uncontrolled, match='do not differ .*noise'):
    controls.check(dataclasses.replace(question, differences=declared))
  # It covers its own field only, not another one that begins like it.
  declared = {'objective.wid': 'a part of a name'}
  with pytest.raises(controls.Uncontrolled, match='objective.width: 8 -> 1'):
    controls.check(dataclasses.replace(question, differences=declared))


def test_of_some_arms_a_declaration_may_be_about_the_others(question):
  every = [arm.name for arm in question.arms]
  assert not question.only(every).partial
  some = question.only([question.baseline])
  assert some.partial
  # Alone it differs from nothing in width, and spends what it spends.
  planned = answering.plan(some)
  assert planned.differences == {question.baseline: []}
  assert planned.mismatches == {} and question.mismatches
  with pytest.raises(controls.Uncontrolled, match='do not differ'):
    controls.check(dataclasses.replace(some, partial=False))
  with pytest.raises(budgets.UnequalBudgets, match='do not differ'):
    budgets.check(planned.budgets, question.mismatches)


def test_a_stage_that_one_arm_has_must_be_declared(question):
  data = dataclasses.replace(question.arm('width_8').stage, name='data')
  other = question.arm('width_1')
  stage = dataclasses.replace(other.stage, inputs=(data,))
  changed = dataclasses.replace(
      question,
      arms=(question.arm('width_8'), dataclasses.replace(other, stage=stage)),
  )
  with pytest.raises(controls.Uncontrolled, match='width_1: data: .absent.'):
    controls.check(changed)


def test_swept_fields_are_no_difference(question):
  other = dataclasses.replace(
      question.arm('width_1'), grid={'models.mlp.clip': (0.5, 1.0)}
  )
  changed = dataclasses.replace(
      question, arms=(question.arm('width_8'), other, question.arm('width_16'))
  )
  controls.check(changed)


def test_budgets_are_of_shapes(question):
  narrow, wide = (
      budgets.of_arm(question, question.arm(name))
      for name in ('width_1', 'width_8')
  )
  # 4 inputs, two layers with biases, one output.
  for width, spent in ((1, narrow), (8, wide)):
    params = 4 * width + 2 * (width * width + width) + width
    assert spent['params'] == spent['trainable_params'] == params
    assert spent['active_params'] == params
    assert spent['examples'] == 20 * 16
  assert wide['training_flops'] > 3 * narrow['training_flops']


def test_unequal_budgets_are_refused_by_name():
  a = {'params': 1e6, 'examples': 100.0}
  near = {'params': 1.01e6, 'examples': 100.0}
  assert budgets.check({'a': a, 'b': near}, {}) == {}
  far = {'params': 1.1e6, 'examples': 100.0}
  with pytest.raises(budgets.UnequalBudgets, match='params: a .*, b ') as error:
    budgets.check({'a': a, 'b': far}, {})
  assert 'examples' not in str(error.value)
  assert budgets.check({'a': a, 'b': far}, {'params': 'asked'}) == {
      'params': {'a': 1e6, 'b': 1.1e6}
  }
  with pytest.raises(budgets.UnequalBudgets, match="declares .'examples'."):
    budgets.check({'a': a, 'b': a}, {'examples': 'why not'})
  with pytest.raises(budgets.UnequalBudgets, match="declares .'flops'."):
    budgets.check({'a': a, 'b': a}, {'flops': 'a typo'})
  # A stage that one arm has is spent by that arm alone.
  with pytest.raises(budgets.UnequalBudgets, match='codec.params: a 0, b 10'):
    budgets.check({'a': a, 'b': {**a, 'codec.params': 10.0}}, {})


def test_a_rate_that_only_tokens_to_come_say_is_asked_for():
  settings = config.replace(
      ladder.get_config('gqa,smoke'), {'data.cache': '{stage:tokens}/tokens'}
  )
  with pytest.raises(questions.QuestionError, match='objective.rate = None'):
    budgets.of_run(settings, 1.0, 1.0)


@pytest.mark.parametrize('family', [flow, latents])
def test_models_of_latents_generate_too(family):
  settings = config.replace(
      family.get_config('smoke' if family is flow else 'flow,smoke'),
      {'data.cache': '{stage:tokens}/tokens', 'objective.rate': 50.0},
  )
  budget = budgets.of_run(settings, 32 / 50, 1.0)
  # In many steps, each of which costs what scoring costs or more.
  assert budget.generation_flops > 2 * budget.scoring_flops > 0


def test_experts_count_where_a_position_meets_them():
  def run(name):
    settings = config.replace(
        ladder.get_config(f'{name},smoke'),
        {
            'evaluators': {},
            'objective.init_embeddings': False,
            'objective.rate': 50.0,
            # Of a stage that has not run.
            'data.cache': '{stage:tokens}/tokens',
        },
    )
    return budgets.of_run(settings, 1.0, 1.0)

  dense, moe = run('gqa'), run('moe')
  assert dense.generation_flops > 0
  assert dense.active_params == dense.params
  idle = moe.params - moe.active_params
  # 6 of 8 experts in each of 2 layers: two matrices in, one out, their biases.
  hidden = 80 // 2
  matrices = 64 * hidden * 2 + hidden * 64 + 2 * hidden + 64
  assert idle == 2 * 6 * matrices
