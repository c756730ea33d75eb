"""Unequal budgets are refused unless they are declared as allowed_mismatches."""

import dataclasses
import json

import pytest

from audiolm_jax.comparison import arms as arms_lib

BUDGET = arms_lib.Budget(
    params=1e6,
    trainable_params=1e6,
    training_flops=1e12,
    inference_flops=1e9,
    examples=256,
    audio_seconds=512,
    bits_per_second=2000,
)


def test_equal_budgets_pass():
  near = dataclasses.replace(BUDGET, training_flops=1.01e12)
  assert arms_lib.check_budgets({'a': BUDGET, 'b': near}, {}) == {}


@pytest.mark.parametrize('name', arms_lib.BUDGETS)
def test_each_unequal_budget_is_refused_by_name(name):
  other = dataclasses.replace(BUDGET, **{name: 1.1 * getattr(BUDGET, name)})
  both = {'full': BUDGET, 'lora': other}
  with pytest.raises(arms_lib.UnequalBudgets, match=f'{name}: full .*, lora '):
    arms_lib.check_budgets(both, {})
  found = arms_lib.check_budgets(both, {name: 'it is the question'})
  assert list(found) == [name] and set(found[name]) == {'full', 'lora'}


def test_one_declaration_does_not_cover_another_budget():
  other = dataclasses.replace(BUDGET, trainable_params=10, examples=10)
  with pytest.raises(arms_lib.UnequalBudgets, match='examples') as error:
    arms_lib.check_budgets(
        {'a': BUDGET, 'b': other}, {'trainable_params': 'the question'}
    )
  assert 'trainable_params' not in str(error.value)


def test_a_budget_of_zero_equals_only_zero():
  zero = dataclasses.replace(BUDGET, trainable_params=0)
  assert arms_lib.check_budgets({'a': zero, 'b': zero}, {}) == {}
  with pytest.raises(arms_lib.UnequalBudgets):
    arms_lib.check_budgets({'a': zero, 'b': BUDGET}, {})


def test_a_declaration_must_name_a_budget():
  with pytest.raises(ValueError, match='flops'):
    arms_lib.check_budgets({'a': BUDGET}, {'flops': 'typo'})


def test_rows_survive_json():
  row = arms_lib.Row('a', 1, {'lr': 1e-3}, {'gain': 0.5}, BUDGET, 3.0)
  assert arms_lib.Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row
