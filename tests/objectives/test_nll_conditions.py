"""The likelihood of frames with conditions, and the bound models that are told them."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import generation
from audiolm_jax import objectives
from audiolm_jax import resolution
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.patterns import sequence as sequence_lib
from configs.lm import conditioning

V, F = 5, 4
_BACKBONE = stack_lib.Stack(
    width=8,
    layers=1,
    mixers=(attention.Attention(heads=2),),
    mlp=mlps.Dense(hidden=8),
    cross=attention.Cross(heads=2),
)
_CONDITIONS = {
    'text': conditioners.Text(source=factors.Text(length=4), how='cross'),
    'language': conditioners.Class(
        source=factors.Name(names=('en', 'it')), how='prefix'
    ),
}
FAST = {'xla_backend_optimization_level': 0}
TOLD = {'text': ['ab', 'c', None], 'language': ['it', None, 'en']}
OTHER = {'text': ['ab', 'd', None], 'language': ['en', None, 'en']}
CODES = np.random.default_rng(0).integers(0, V, (3, F, 2)).astype(np.int32)
LENGTHS = np.array([F, F - 1, F], np.int32)
GREEDY = generation.Sampler(temperature=0.0)


def _objective(dropout=0.0, cls=decoders.Decoder, **decoder):
  conditions = {
      name: condition.clone(dropout=dropout)
      for name, condition in _CONDITIONS.items()
  }
  decoder = cls(
      vocabularies=(V, V), backbone=_BACKBONE, conditions=conditions, **decoder
  )
  return objectives.NLL(lengths={'frames': F}, decoder=decoder)


@pytest.fixture(scope='module')
def objective():
  return _objective()


@pytest.fixture(scope='module')
def variables(objective):
  """Larger than at the start, so that every path matters."""
  init = jax.jit(objective.init, compiler_options=FAST)
  rng = np.random.default_rng(0)
  return jax.tree.map(
      lambda w: 0.5 * rng.normal(size=w.shape).astype(np.float32),
      nn.meta.unbox(init(jax.random.key(0))),
  )


def _batch(objective, told):
  prepared = {
      name: module.source.prepare(told[name])
      for name, module in objective.decoder.conditions.items()
  }
  return {
      'codes': CODES,
      'num_frames': LENGTHS,
      'id': np.arange(3, dtype=np.int32),
      **factors.flatten(prepared),
  }


def test_batches_hold_the_conditions(objective, variables):
  batch, example = _batch(objective, TOLD), objective.example_batch(3)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in example.items()
  }
  loss = jax.jit(objective.__call__, compiler_options=FAST)
  bound = objective.bind(variables)
  found = []
  for told in (TOLD, OTHER):
    terms = loss(variables, _batch(objective, told), jax.random.key(0)).terms
    scores = bound.score(CODES, LENGTHS, told)['frames']
    np.testing.assert_allclose(
        terms['nll'][0], -scores.log_prob.sum(), rtol=1e-5
    )
    found.append(np.asarray(scores.log_prob))
  moved = (found[0] != found[1]).any(axis=(1, 2))
  np.testing.assert_array_equal(moved, [True, True, False])
  del batch['conditions/text/values']
  with pytest.raises(ValueError, match="no condition 'text'.*data source"):
    objective(variables, batch, jax.random.key(0))


def test_conditions_are_dropped_in_training_only(objective, variables):
  dropping = _objective(dropout=1.0)
  loss = jax.jit(dropping.__call__, compiler_options=FAST)
  batch = _batch(objective, TOLD)
  terms = loss(variables, batch, jax.random.key(0)).terms
  bound = dropping.bind(variables)
  nothing = -bound.score(CODES, LENGTHS)['frames'].log_prob.sum()
  np.testing.assert_allclose(terms['nll'][0], nothing, rtol=1e-5)
  told = bound.score(CODES, LENGTHS, TOLD)['frames'].log_prob
  kept = objective.bind(variables).score(CODES, LENGTHS, TOLD)
  kept = kept['frames'].log_prob
  np.testing.assert_array_equal(told, kept)
  assert abs(-told.sum() - nothing) > 1e-2


def test_a_bound_model_generates_what_it_is_told(objective, variables):
  """Greedy codes are the likeliest under the same conditions; guided, too."""
  bound = objective.bind(variables)
  prompt = CODES[:, :1]
  plain = bound.generate(prompt, F, sampler=GREEDY, conditions=TOLD)
  full = np.full(3, F)
  for f, k in ((1, 0), (1, 1), (F - 1, 0), (F - 1, 1)):
    totals = []
    for code in range(V):
      trial = plain.copy()
      trial[:, f, k] = code
      scores = bound.score(trial, full, TOLD)['frames'].log_prob
      totals.append(np.asarray(scores)[:, f, k])
    np.testing.assert_array_equal(plain[:, f, k], np.argmax(totals, axis=0))
  nothing = bound.generate(prompt, F, sampler=GREEDY)
  assert (plain != nothing).any()

  def guided(scale):
    return bound.generate(
        prompt, F, sampler=GREEDY, conditions=TOLD, guidance=scale
    )

  np.testing.assert_array_equal(guided(1.0), plain)
  np.testing.assert_array_equal(guided(0.0), nothing)
  row = {name: rows[:1] for name, rows in TOLD.items()}
  session = bound.session(CODES[:1, :1], F, sampler=GREEDY, conditions=row)
  np.testing.assert_array_equal(np.concatenate(list(session)), plain[0])


def test_conditions_that_do_not_fit_are_refused(objective, variables):
  bound = objective.bind(variables)
  with pytest.raises(ValueError, match="'mood'.*'language', 'text'"):
    bound.score(CODES, LENGTHS, {'mood': ['sad'] * 3})
  with pytest.raises(ValueError, match='language: 2 values for 3 rows'):
    bound.score(CODES, LENGTHS, {'language': ['it'] * 2})
  with pytest.raises(ValueError, match='none of the names'):
    bound.generate(CODES, F, conditions={'language': ['fr'] * 3})
  with pytest.raises(ValueError, match='beside a context'):
    bound.generate(CODES, F, conditions=TOLD, context={})


def test_data_must_mean_the_same_by_a_condition():
  settings = conditioning.get_config('language_add,smoke')
  language = settings.objective.conditions['language']
  known = resolution.resolve(settings)
  assert known.data.conditions == {'language': language}
  # What else batches hold stays, and all come in one order.
  text = factors.Text(length=3)
  both = config.replace(settings, {'data.conditions.about': text})
  found = resolution.resolve(both).data.conditions
  assert list(found.items()) == [('about', text), ('language', language)]
  other = config.replace(language, {'names': language.names[::-1]})
  settings = config.replace(settings, {'data.conditions.language': other})
  with pytest.raises(config.ConfigError, match='conditions.language is .*but'):
    assembly_lib.Assembly(settings)


def test_a_stage_is_told_too(variables):
  segments = (
      sequence_lib.Segment('shown', (0,), role='observe'),
      sequence_lib.Segment('made', (1,)),
  )
  sequence = sequence_lib.Sequence(segments)
  stage = _objective(cls=decoders.Staged, sequence=sequence)
  lm = variables['lm']['params']
  turns = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
  bound = stage.bind({'lm': {'params': {**lm, 'segment': turns}}})
  made = bound.generate(
      CODES, num_frames=LENGTHS, sampler=GREEDY, conditions=TOLD
  )
  totals = []
  for code in range(V):
    trial = made.copy()
    trial[:, 1, 1] = code
    scores = bound.score(trial, LENGTHS, TOLD)['frames'].log_prob
    totals.append(np.asarray(scores)[:, 1, 1])
  np.testing.assert_array_equal(made[:, 1, 1], np.argmax(totals, axis=0))


def test_segments_take_their_text_as_a_segment():
  segment = sequence_lib.Segment('speech', (0, 1))
  decoder = decoders.Segmented(
      vocabularies=(V, V),
      sequence=sequence_lib.Sequence((segment,)),
      backbone=_BACKBONE,
      conditions=_CONDITIONS,
  )
  with pytest.raises(config.ConfigError, match='segments that are observed'):
    objectives.NLL(decoder=decoder, lengths={'speech': 3})
