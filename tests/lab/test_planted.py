"""A difference and a null that were planted, through real runs of the lab.

Tokens are Markov chains, whose entropy is known: of one arm's the codes are
renamed, which changes nothing that could be learnt, and another's say .1 bits
more a frame.
"""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.lab import answering
from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.lab import stages
from configs.lm import quickstart
from tests.data import made_caches

V, FRAMES, CLIPS = 16, 48, {'train': 1500, 'validation': 40, 'test': 80}
PLANTED = 0.1


def _entropy(stay):
  """Bits a frame where code c is followed by c + 1 more often by `stay`."""
  p = np.full(V, (1 - stay) / V)
  p[0] += stay
  return -(p * np.log2(p)).sum()


def _with_entropy(bits):
  """The `stay` of an entropy, by bisection."""
  low, high = 0.0, 1.0 - 1e-9
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if _entropy(middle) > bits else (low, middle)
  return low


def _chain(split, index, stay):
  """Codes of a clip; two values of `stay` share all draws."""
  rng = np.random.default_rng([len(split), index])
  draws, others = rng.random(FRAMES), rng.integers(0, V, FRAMES)
  codes = [int(others[0])]
  for draw, other in zip(draws[1:], others[1:], strict=True):
    codes.append((codes[-1] + 1) % V if draw < stay else int(other))
  return np.array(codes)


def _bits(codes, stay):
  """-log2 of a chain's probability, a frame, after its first code."""
  follows = np.diff(codes) % V == 1
  p = (1 - stay) / V + stay * follows
  return -np.log2(p).sum() / FRAMES


STAY = {'plain': _with_entropy(2.0), 'more': _with_entropy(2.0 + PLANTED)}
ARMS = {'plain': 'plain', 'renamed': 'plain', 'more': 'more'}


def _codes(arm, split, index):
  codes = _chain(split, index, STAY[ARMS[arm]])
  if arm == 'renamed':
    codes = np.random.default_rng(7).permutation(V)[codes]
  return codes[:, None].astype(np.int32)


def _settings(cache):
  return config.replace(
      quickstart.get_config('smoke'),
      {
          'objective.decoder.vocabularies': (V,),
          'objective.decoder.backbone.dropout': 0.0,
          'objective.init_embeddings': False,
          'objective.rate': 50.0,
          'data.cache': cache,
          'data.frames': FRAMES,
          'evaluators': {},
          'steps': 600,
          'eval_every': 600,
          'checkpoint.every': 600,
          'checkpoint.best': None,
          'batch_size': 16,
      },
  )


def _measure(split):
  return lambda model: stages.Evaluate(
      name=split,
      inputs=(model,),
      evaluators={
          'bits': evaluation.Bits(clips=evaluation.TokenClips(split=split))
      },
  )


def _question(caches):
  return questions.Question(
      name='planted',
      title='Planted',
      text='',
      arms=tuple(
          questions.Arm(
              name,
              stages.Train(name='lm', config=_settings(cache)),
              {'models.lm.schedule.learning_rate': (3e-3,)},
          )
          for name, cache in caches.items()
      ),
      baseline='plain',
      validate=_measure('validation'),
      select='eval/bits/bits_per_frame',
      test=_measure('test'),
      outcomes=(
          questions.Outcome(
              'bits',
              'eval/bits/bits_per_frame',
              'bits/frame',
              '',
              margin=0.05,
              likelihood=True,
          ),
      ),
      differences={'data.cache': 'what is planted is in the tokens'},
      mismatches={},
      seeds=5,
      row_seconds=FRAMES / 50,
      bits_per_second=50 * np.log2(V),
      controls=(
          questions.Control('more', 'plain', 'bits', 'higher', 'planted'),
      ),
  )


def test_the_chains_have_the_entropies_that_are_planted():
  """On the very clips that are tested."""
  costs = {
      name: np.mean(
          [_bits(_chain('test', i, s), s) for i in range(CLIPS['test'])]
      )
      for name, s in STAY.items()
  }
  assert _entropy(STAY['more']) - _entropy(STAY['plain']) == pytest.approx(
      PLANTED
  )
  assert costs['more'] - costs['plain'] == pytest.approx(PLANTED, abs=0.03)
  renamed = _codes('renamed', 'test', 0)[:, 0]
  plain = _codes('plain', 'test', 0)[:, 0]
  assert (renamed != plain).any()
  assert len(set(zip(plain, renamed, strict=True))) == len(set(plain))


@pytest.mark.slow
def test_what_was_planted_is_found_and_the_null_is_not(tmp_path):
  caches = {
      name: made_caches.write(
          tmp_path / name,
          made_caches.identity((V,), CLIPS),
          lambda split, i, name=name: made_caches.example(
              _codes(name, split, i), {'id': f'{split}{i}'}
          ),
      )
      for name in ARMS
  }
  question = _question(caches)
  running = runs_lib.Running(
      question, runner.Lab(tmp_path / 'lab'), say=lambda line: None
  )
  sweeps = running.run()
  said = answering.answer(answering.plan(question), running, sweeps)
  renamed, more, control = said.results['comparisons']['bits']
  assert renamed['reading'] == 'equal', renamed
  assert more['reading'] == 'different' and control['found'], more
  assert more['low'] < PLANTED + 0.03 and more['high'] > PLANTED - 0.03
  # Every arm is close to what its test clips truly cost.
  for arm in said.results['arms']:
    stay = STAY[ARMS[arm['name']]]
    true = np.log2(V) / FRAMES + np.mean(
        [_bits(_chain('test', i, stay), stay) for i in range(CLIPS['test'])]
    )
    bits = [run['values']['bits'] for run in arm['runs']]
    assert true < np.mean(bits) < 1.05 * true
