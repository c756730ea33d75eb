"""The question of adaptation, end to end on a tiny LM over made-up tokens."""

import dataclasses
import json
import shlex

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.tokenizers import encoding
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.comparison import answers
from audiolm_jax.comparison import arms as arms_lib
from experiments import adaptation
from experiments import run
from tests.experiments import made_up

V, K, FRAMES = 6, 2, 8
SPEC = made_up.spec(K, V)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """(base, workdir): a trained base LM, and Italian tokens."""
  base = tmp_path_factory.mktemp('base')
  workdir = tmp_path_factory.mktemp('experiment')
  made_up.write_cache(base / 'tokens', ('en', 'fr', 'es'), SPEC)
  made_up.write_cache(workdir / 'tokens_it', ('it',), SPEC)
  backbone = stack_lib.Stack(
      width=8,
      layers=1,
      mixers=(attention.Attention(heads=1),),
      mlp=mlps.Dense(hidden=8),
  )
  train.train(
      train.Config(
          objective=objectives.NLL(
              lengths={'frames': FRAMES},
              decoder=decoders.Decoder(
                  vocabularies=(V,) * K, backbone=backbone
              ),
          ),
          data=data.TokenCrops(cache=str(base / 'tokens'), frames=FRAMES),
          models={'lm': train.ModelTraining()},
          steps=4,
          batch_size=4,
      ),
      base / 'lm',
  )
  return base, workdir


@pytest.fixture(scope='module')
def question(folders):
  with pytest.MonkeyPatch.context() as patch:
    sizes = {'steps': 3, 'examples': 6, 'seeds': 2, 'clips': 6}
    patch.setitem(adaptation._SIZES, 'smoke', sizes)
    patch.setitem(
        adaptation._RATES, 'smoke', {'full': (1e-6, 3e-2), 'lora': (3e-2,)}
    )
    whole = adaptation.question(*folders, 'smoke')
    # Two arms show as much as three.
    return dataclasses.replace(
        whole, arms=whole.arms[:2], contrasts=whole.contrasts[:1]
    )


@pytest.fixture(scope='module')
def rows(folders, question):
  return run.answer(question, folders[1])


def test_arms_differ_in_their_transform_alone(question):
  full, lora = (arm.configure(1e-3) for arm in question.arms)
  lines = config.difference(full, lora)
  assert len(lines) <= 5
  assert all('param_transform' in line for line in lines)


def test_unequal_budgets_are_refused_before_training(folders, question):
  refused = dataclasses.replace(question, allowed_mismatches={})
  with pytest.raises(arms_lib.UnequalBudgets, match='trainable_params'):
    run.answer(refused, folders[1] / 'refused')
  assert not (folders[1] / 'refused').exists()


def test_rows_account_for_what_was_spent(rows, question):
  assert [(r.arm, r.seed) for r in rows] == [
      (arm.name, seed) for arm in question.arms for seed in question.seeds
  ]
  full, lora = rows[0].budget, rows[-1].budget
  assert full.params == full.trainable_params < lora.params
  assert lora.params == full.params + lora.trainable_params
  assert full.examples == lora.examples == 12
  assert full.audio_seconds == pytest.approx(12 * FRAMES / 50)
  assert full.bits_per_second == pytest.approx(50 * K * np.log2(V))
  assert full.training_flops > 0 and lora.inference_flops > full.inference_flops


def test_the_better_learning_rate_was_taken(rows, folders):
  assert {r.settings['learning_rate'] for r in rows} == {3e-2}
  sweep = folders[1] / 'results' / 'full'
  bits = [
      json.loads((sweep / name / 'result.json').read_text())['metrics'][
          'eval/it/bits_per_frame'
      ]
      for name in ('sweep_1e-06', 'sweep_0.03')
  ]
  assert bits[1] < bits[0]


def test_outcomes_are_differences_from_the_base(rows, folders, question):
  base = json.loads(
      (folders[1] / 'results' / 'base' / 'result.json').read_text()
  )
  answer = answers.Answer(question, rows, base, {}, {}, folders[1])
  gain, forgetting = question.outcomes
  for row in rows:
    bits = row.metrics['eval/it/bits_per_frame']
    expected = base['eval/it/bits_per_frame'] - bits
    assert answer.values(row.arm, gain)[row.seed] == pytest.approx(expected)
    # The new language has a code that the base has never seen.
    assert expected > 0
    bits = row.metrics['eval/old/bits_per_frame']
    expected = bits - base['eval/old/bits_per_frame']
    forgotten = answer.values(row.arm, forgetting)[row.seed]
    assert forgotten == pytest.approx(expected)
  checkpoints = answer.checkpoints('lora_4', 'full', gain)
  assert checkpoints.n == 6
  seed = question.seeds[0]
  difference = (
      answer.values('lora_4', gain)[seed] - answer.values('full', gain)[seed]
  )
  assert checkpoints.mean == pytest.approx(difference, rel=1e-4)


def test_the_report_holds_the_answer(rows, folders, question):
  text = (folders[1] / 'report.html').read_text()
  for expected in (question.title, 'gain: lora_4 − full', 'trainable'):
    assert expected in text
  assert 'these checkpoints' in text


def test_what_is_finished_is_not_run_again(
    rows, folders, question, monkeypatch
):
  def refuse(*_):
    raise AssertionError('trained again')

  monkeypatch.setattr(train, 'train', refuse)
  assert run.answer(question, folders[1]) == rows
  # One missing result is all that is made again.
  path = folders[1] / 'results' / 'lora_4' / 'seed_2' / 'result.json'
  text = path.read_text()
  path.unlink()
  with pytest.raises(AssertionError, match='trained again'):
    run.answer(question, folders[1])
  path.write_text(text)


def test_a_work_directory_of_other_sizes_is_refused(rows, folders, question):
  def other(rate):
    return config.replace(question.arms[0].configure(rate), {'steps': 5})

  changed = dataclasses.replace(
      question,
      arms=(
          dataclasses.replace(question.arms[0], configure=other),
          *question.arms[1:],
      ),
      allowed_mismatches={
          **question.allowed_mismatches,
          'examples': '',
          'audio_seconds': '',
      },
  )
  with pytest.raises(config.ConfigError, match='config.steps: 3 -> 5'):
    run.answer(changed, folders[1])


def test_italian_must_be_new_and_of_the_same_tokenizer(folders, tmp_path):
  base, workdir = folders
  made_up.write_cache(tmp_path / 'tokens_it', ('it',), SPEC, 'another')
  with pytest.raises(encoding.TokensError, match='not of the tokenizer'):
    adaptation.question(base, tmp_path, 'smoke')
  made_up.write_cache(tmp_path / 'base' / 'tokens', ('en', 'it'), SPEC)
  with pytest.raises(encoding.TokensError, match='must be new'):
    adaptation.question(tmp_path / 'base', workdir, 'smoke')


def test_the_preparing_commands_are_complete(folders):
  lines = list(adaptation.prepare(*folders))
  assert 'prepare_data.py --corpus=made_up --languages=it' in lines[0]
  assert f'--out={folders[1]}/tokens_it' in lines[1]
  odd = folders[1] / "it's my 'run'"
  *_, line = adaptation.prepare(folders[0], odd)
  assert shlex.split(line)[-1] == f'--out={odd}/tokens_it'
