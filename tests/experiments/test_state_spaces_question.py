"""The question of state spaces: its arms and controls."""

import pytest

from audiolm_jax import config
from audiolm_jax.lab import answering
from experiments import speech
from experiments import state_spaces


@pytest.fixture(scope='module', params=['smoke', 'cpu'])
def planned(request):
  return answering.plan(state_spaces.question(request.param))


def test_arms_differ_in_their_backbone_alone(planned):
  *arms, control = planned.question.arms[1:]
  for arm in arms:
    lines = planned.differences[arm.name]
    assert lines
    assert all('lm.objective.decoder.backbone.' in line for line in lines)
  lines = planned.differences[control.name]
  assert sorted(line.partition(':')[0] for line in lines) == [
      'lm.checkpoint.every',
      'lm.eval_every',
      'lm.steps',
  ]


def test_long_runs_are_the_short_ones_with_four_times_the_steps():
  short, long = (state_spaces.question('cpu', v) for v in ('', 'long'))
  answering.plan(long)
  for arm in long.arms:
    mine = long.model(arm, {}, 1).config
    rate = {speech.RATE: 2e-3}
    its = short.model(short.arm(arm.name), rate, 1).config
    assert mine.steps == 4 * its.steps
    assert config.replace(mine, speech.lasting(its.steps)) == its


def test_arms_have_the_same_number_of_parameters(planned):
  params = [spent['params'] for spent in planned.budgets.values()]
  # The widths of small models come in coarser steps.
  small = max(params) < 1e6
  assert max(params) <= (1.05 if small else 1.04) * min(params)


def test_all_share_one_tokenizer_and_one_cache(planned):
  chains = [arm.stage.chain for arm in planned.question.arms]
  for name in ('tokenizer', 'tokens'):
    assert len({chain[name].key for chain in chains}) == 1
  assert len({chain['lm'].key for chain in chains}) == len(chains)


def test_likelihoods_are_exact(planned):
  assert set(planned.tags.values()) == {'exact'}


def test_arms_are_held_against_attention_and_the_lstm(planned):
  pairs = planned.question.pairs
  assert ('mamba2', 'transformer') in pairs and ('mamba2', 'lstm') in pairs
  assert ('transformer', 'lstm') not in pairs and len(pairs) == 9
