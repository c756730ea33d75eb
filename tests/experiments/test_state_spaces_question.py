"""The question of state spaces, end to end on tiny backbones."""

import dataclasses
import json

import pytest

from audiolm_jax import config
from audiolm_jax.comparison import arms as arms_lib
from configs.lm import quickstart
from experiments import run
from experiments import state_spaces
from tests.experiments import made_up

FRAMES = 8


def _small(arm):
  """The arm in two steps, without the codec's vectors, which no cache has."""

  def configured(rate):
    return config.replace(
        arm.configure(rate),
        {
            'objective.init_embeddings': False,
            'objective.lengths.frames': FRAMES,
            'data.frames': FRAMES,
            'steps': 2,
            'batch_size': 4,
            'log_every': 1,
        },
    )

  return dataclasses.replace(arm, configure=configured)


def _listen(directory, report):
  # The run can still be loaded.
  assert (directory / 'checkpoints' / '2').exists()
  report.add_text('What it says', f'of {directory.parent.name}')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  base = tmp_path_factory.mktemp('base')
  tokens = made_up.spec(quickstart.CODEBOOKS, 1024)
  made_up.write_cache(base / 'tokens', ('en', 'fr', 'es'), tokens)
  return base, tmp_path_factory.mktemp('experiment')


@pytest.fixture(scope='module')
def question(folders):
  whole = state_spaces.question(*folders, 'smoke').only(['lstm', 'transformer'])
  return dataclasses.replace(
      whole, arms=tuple(map(_small, whole.arms)), listen=_listen
  )


@pytest.fixture(scope='module')
def rows(folders, question):
  return run.answer(question, folders[1])


@pytest.mark.parametrize('budget', ['smoke', 'cpu'])
def test_arms_differ_in_their_backbone_alone(folders, budget):
  arms = state_spaces.question(*folders, budget).arms
  first, *others = (arm.configure(1e-3) for arm in arms)
  for other in others:
    lines = config.difference(first, other)
    assert lines
    assert all('.decoder.backbone.' in line for line in lines)


def test_arms_have_the_same_number_of_parameters(folders):
  question = state_spaces.question(*folders, 'cpu')
  sizes = []
  for arm in question.arms:
    settings = config.replace(
        arm.configure(1e-3), {'objective.init_embeddings': False}
    )
    sizes.append(run._budget(question, settings).params)
  assert max(sizes) <= 1.04 * min(sizes)


def test_outcomes_without_a_base_are_metrics(rows, folders, question):
  assert [(r.arm, r.seed) for r in rows] == [
      (arm, seed) for arm in ('transformer', 'lstm') for seed in (1, 2)
  ]
  page = (folders[1] / 'report.html').read_text()
  for row in rows:
    bits = row.metrics['eval/test/bits_per_frame']
    assert 0 < bits < 41
  lstm = [
      r.metrics['eval/test/bits_per_frame'] for r in rows if r.arm == 'lstm'
  ]
  assert f'{sum(lstm) / 2:.3f}' in page
  assert 'bits: lstm − transformer' in page
  # One code and a little noise: bigrams have learned that.
  bigram = rows[0].metrics['eval/test/bigram/bits_per_frame']
  assert bigram < 20
  assert f'{bigram:.4g}' in page
  assert not (folders[1] / 'results' / 'base').exists()


def test_each_arm_is_heard(rows, folders, question):
  del rows
  report = json.loads((folders[1] / 'report.json').read_text())
  heard = {
      section['title']: section['blocks'][0]['text']
      for section in report['sections']
      if 'What it says' in section['title']
  }
  assert heard == {
      'transformer: What it says': 'of transformer',
      'lstm: What it says': 'of lstm',
  }
  assert not (
      folders[1] / 'results' / 'lstm' / 'seed_1' / 'checkpoints'
  ).exists()


def test_listening_that_was_interrupted_is_made_up_for(question, tmp_path):
  small = dataclasses.replace(question.only(['lstm']), seeds=(1,))

  def interrupt(directory, report):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run.answer(dataclasses.replace(small, listen=interrupt), tmp_path)
  with pytest.MonkeyPatch.context() as patch:
    patch.delattr(run.train, 'train')
    (row,) = run.answer(small, tmp_path)
  assert row.metrics['eval/test/bits_per_frame'] > 0
  assert 'lstm: What it says' in (tmp_path / 'report.html').read_text()


def test_only_takes_arms_and_the_contrasts_among_them(folders):
  whole = state_spaces.question(*folders, 'smoke')
  some = whole.only(['s4d', 'lstm', 'transformer'])
  assert [arm.name for arm in some.arms] == ['transformer', 'lstm', 's4d']
  assert some.contrasts == (
      ('lstm', 'transformer'),
      ('s4d', 'transformer'),
      ('s4d', 'lstm'),
  )
  assert not whole.only(['s4d', 'rg_lru']).contrasts
  with pytest.raises(ValueError, match="'gru'.*known: .*'rg_lru'"):
    whole.only(['gru'])
  assert isinstance(some, arms_lib.Question)


def test_nothing_needs_preparing(folders):
  assert not list(state_spaces.prepare(*folders))
