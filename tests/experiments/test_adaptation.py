"""The question of adaptation: its stages, arms and controls."""

import pytest

from audiolm_jax import param_transforms
from audiolm_jax.lab import answering
from experiments import adaptation
from experiments import speech


@pytest.fixture(scope='module')
def planned():
  return answering.plan(adaptation.question('smoke'))


def test_arms_differ_in_their_transform_alone(planned):
  full, *others = planned.question.arms
  assert not planned.differences[full.name]
  for arm in others:
    lines = planned.differences[arm.name]
    assert lines
    assert all('lm.models.lm.param_transform' in line for line in lines)


def test_every_arm_starts_from_the_base_that_outcomes_are_held_against(planned):
  question = planned.question
  for arm in question.arms:
    assert arm.stage.chain['base'].key == question.base.key
    model = arm.stage.config.models['lm']
    assert model.init_from == '{stage:base}'
    assert not arm.stage.config.objective.init_embeddings
  gain, forgetting = question.outcomes
  assert gain.sign == -1 and forgetting.sign == 1


def test_italian_is_new_to_the_tokenizer_and_the_base(planned):
  chain = planned.question.arms[0].stage.chain
  known = speech.PROMPTS.languages('cpu')
  assert adaptation.NEW not in known and len(known) == 3
  tokens = {n: ' '.join(chain[n].lines[-1]) for n in ('tokens', 'tokens_it')}
  assert '--languages=it ' in tokens['tokens_it'] + ' '
  assert '--languages=it' not in tokens['tokens']
  assert chain['base'].inputs[0].key == chain['tokens'].key
  # One tokenizer makes both.
  assert chain['tokens'].inputs == chain['tokens_it'].inputs
  assert chain['tokenizer'].config.data.languages == speech.PROMPTS.languages(
      'smoke'
  )


def test_budgets_are_accounted(planned):
  spent = planned.budgets
  full, lora = spent['full'], spent['lora_4']
  assert full['params'] == full['trainable_params'] < lora['params']
  assert lora['params'] == full['params'] + lora['trainable_params']
  assert full['examples'] == lora['examples'] == 3 * 8
  assert full['audio_seconds'] == pytest.approx(3 * 8 * 64 / 50)
  assert full['bits_per_second'] == pytest.approx(50 * 4 * 10)
  assert lora['scoring_flops'] > full['scoring_flops'] > 0
  # The base is every arm's.
  assert not any('base.' in name for name in full)


@pytest.mark.parametrize('budget', ['cpu', 'gpu', 'pod'])
def test_larger_budgets_are_planned(budget):
  question = adaptation.question(budget)
  transforms = [
      arm.stage.config.models['lm'].param_transform for arm in question.arms
  ]
  assert transforms == [
      param_transforms.Full(),
      param_transforms.Lora(rank=4, alpha=8.0, targets=('',)),
      param_transforms.Lora(rank=16, alpha=32.0, targets=('',)),
  ]
