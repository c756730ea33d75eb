"""Questions about language models of one token cache: what their arms cost."""

import functools

import pytest

from audiolm_jax import config
from audiolm_jax.lab import budgets
from audiolm_jax.lab import controls
from experiments import codebook_patterns
from experiments import gpt2_to_gpt_oss

_QUESTIONS = {
    'patterns': codebook_patterns.question('cpu'),
    'ladder': gpt2_to_gpt_oss.question('cpu'),
    'patterns_world': codebook_patterns.question('cpu', 'speech_world'),
    'ladder_world': gpt2_to_gpt_oss.question('cpu', 'speech_world'),
}


@functools.cache
def _budget(name, arm):
  """Of one step of one row."""
  question = _QUESTIONS[name]
  settings = question.planned(question.arm(arm)).config
  settings = config.replace(settings, {'batch_size': 1, 'steps': 1})
  return budgets.of_run(
      settings, question.row_seconds, question.bits_per_second
  )


@pytest.mark.parametrize('name', _QUESTIONS)
def test_arms_differ_as_declared_on_one_cache(name):
  question = _QUESTIONS[name]
  controls.check(question)
  chains = [arm.stage.chain for arm in question.arms]
  assert len({chain['tokens'].key for chain in chains}) == 1
  assert len({chain['lm'].key for chain in chains}) == len(chains)


@pytest.mark.parametrize('name', _QUESTIONS)
def test_two_arms_may_be_run_before_the_others(name):
  question = _QUESTIONS[name]
  other = next(arm for arm in question.arms if arm.name != question.baseline)
  controls.check(question.only([question.baseline, other.like or other.name]))


@pytest.mark.parametrize('name', ['patterns', 'ladder'])
def test_of_another_corpus_only_data_and_rows_differ(name):
  first, other = _QUESTIONS[name], _QUESTIONS[f'{name}_world']
  assert (first.variant, other.variant) == ('', 'speech_world')
  for mine, its in zip(first.arms, other.arms, strict=True):
    a, b = mine.stage.config, its.stage.config
    rows = {'data.frames': a.data.frames, 'batch_size': a.batch_size}
    assert config.replace(b, rows) == a
    codec = its.stage.chain['tokenizer'].config
    rows = {
        'data.corpus': 'asterisk_prompts',
        'data.languages': ('en', 'fr', 'es'),
    }
    assert config.replace(codec, rows) == mine.stage.chain['tokenizer'].config


def test_codec_and_language_models_know_other_speakers_of_the_world():
  chain = _QUESTIONS['patterns_world'].arms[0].stage.chain
  assert chain['tokenizer'].config.data.languages == (
      'sentences-tokenizer-clean-4000',
  )
  prepare, tokenize = chain['tokens'].lines
  for line in (prepare, tokenize):
    assert '--languages=sentences-lm-clean-4000' in line


def test_arms_that_are_called_equal_cost_what_delay_costs():
  def flops(arm):
    return _budget('patterns', arm).training_flops / delay

  delay = _budget('patterns', 'delay').training_flops
  assert flops('coarse_first_equal') == pytest.approx(1, rel=0.02)
  assert flops('flatten_equal') == pytest.approx(1, rel=0.02)
  # One code a step at full width costs nearly four times as much.
  assert 3.4 < flops('flatten') < 4
  assert flops('delay_depth') < 1.3


def test_rungs_cost_the_same_and_experts_are_more_parameters():
  first, last = (_budget('ladder', arm) for arm in ('gpt2', 'gpt_oss'))
  assert last.training_flops == pytest.approx(first.training_flops, rel=0.1)
  assert last.active_params == pytest.approx(first.active_params, rel=0.1)
  assert last.params > 1.8 * first.params
