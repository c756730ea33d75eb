"""The likelihood of frames with experts, with a part of the steps, and in stages."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import objectives
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.objectives import likelihood
from tests.decoders import small

V, F, B = 5, 6, 4
LENGTHS = np.array([6, 3, 0, 5], np.int32)
BACKBONE = {
    'kind': 'stack',
    'width': 8,
    'layers': 2,
    'mixers': ({'kind': 'attention', 'heads': 2},),
    'mlp': {'kind': 'dense', 'hidden': 8},
    'scan': False,
}


def _objective(slots=3, **fields):
  decoder = {
      'kind': 'tokens',
      'vocabularies': (V,) * slots,
      'backbone': BACKBONE,
      **fields.pop('decoder', {}),
  }
  return config.build(
      objectives.NLL, {'lengths': {'frames': F}, 'decoder': decoder, **fields}
  )


def _variables(objective):
  batch = _batch(objective)
  inputs = batch['codes'][:1], batch['num_frames'][:1]
  return {'lm': {'params': small.parameters(objective.decoder, *inputs)}}


def _batch(objective):
  rng = np.random.default_rng(0)
  slots = len(objective.decoder.vocabularies)
  return {
      'codes': rng.integers(0, V, (B, F, slots)).astype(np.int32),
      'num_frames': LENGTHS,
      'id': np.arange(B, dtype=np.int32),
  }


def test_experts_add_their_losses_as_means_over_steps():
  mlp = {'kind': 'moe', 'experts': 3, 'top_k': 2, 'hidden': 4}
  objective = _objective(
      decoder={'backbone': {**BACKBONE, 'mlp': mlp}}, load_balance=0.5
  )
  assert objective.loss_weights == {
      'nll': 1.0,
      'load_balance': 0.5,
      'router_z': 0.001,
  }
  variables, batch = _variables(objective), _batch(objective)
  run = small.quick_jit(objective.__call__)
  terms = run(variables, batch, jax.random.key(0)).terms
  assert set(terms) == set(objective.loss_weights)
  # Delayed: two steps more than frames, but for the empty row.
  for name in ('load_balance', 'router_z'):
    assert float(terms[name][1]) == 6 + 3 + 5 + 3 * 2
  # The least there can be is 1, with all experts alike.
  assert float(terms['load_balance'][0]) / 20 > 1.0 - 1e-3
  halves = [
      run(
          variables,
          jax.tree.map(lambda x, i=i: x[i : i + 2], batch),
          jax.random.key(0),
      ).terms
      for i in (0, 2)
  ]
  for name, total in terms.items():
    added = [sum(float(h[name][i]) for h in halves) for i in (0, 1)]
    np.testing.assert_allclose(added, total, rtol=1e-5)


def test_without_experts_there_are_no_such_terms():
  objective = _objective()
  assert objective.loss_weights == {'nll': 1.0}
  variables, batch = _variables(objective), _batch(objective)
  output = jax.eval_shape(
      objective.__call__, variables, batch, jax.random.key(0)
  )
  assert set(output.terms) == {'nll'}


@pytest.mark.parametrize('pattern', ['delay', 'flatten'])
def test_a_part_of_the_steps_gives_unbiased_terms_and_metrics(pattern):
  head = {
      'kind': 'depth',
      'fraction': 0.25,
      'first': 'backbone' if pattern == 'delay' else 'depth',
      'backbone': {**BACKBONE, 'width': 4, 'layers': 1},
  }
  objective = _objective(decoder={'head': head, 'pattern': {'kind': pattern}})
  variables, batch = _variables(objective), _batch(objective)
  scores = small.scorer(objective.decoder)(
      variables['lm']['params'], batch['codes'], batch['num_frames']
  )
  nats = -np.asarray(scores.log_prob)
  runs = 400

  @small.quick_jit
  def every(variables, seeds):
    def one(seed):
      output = objective(variables, batch, jax.random.key(seed))
      return output.terms['nll'], output.metrics

    return jax.lax.map(one, seeds)

  (nll, count), metrics = every(variables, np.arange(runs))

  def check(found, wanted):
    found = np.asarray(found)
    assert found.std() > 0
    assert abs(found.mean() - wanted) < 4 * found.std() / math.sqrt(runs)

  assert (np.asarray(count) == LENGTHS.sum() * 3).all()
  check(nll, nats.sum())
  check(metrics['bits_per_frame'][0], nats.sum() / math.log(2))
  check(
      metrics['bits_per_frame_codebook_2'][0], nats[..., 2].sum() / math.log(2)
  )
  first = np.asarray(metrics['bits_per_frame_codebook_0'][0])
  if pattern == 'delay':  # scored everywhere
    np.testing.assert_allclose(
        first, nats[..., 0].sum() / math.log(2), rtol=1e-4
    )
  else:
    check(first, nats[..., 0].sum() / math.log(2))


def test_nats_are_sums_where_all_is_scored_and_means_where_a_part_is():
  rng = np.random.default_rng(0)
  log_prob = -rng.random((2, 3, 2)).astype(np.float32)
  mask = np.ones((2, 3, 2), bool)
  mask[1, 1:, 1] = False
  scores = scores_lib.StreamScores(np.where(mask, log_prob, 0), mask)
  found = np.asarray(likelihood.nats_by_slot(scores, np.float32(6)))
  np.testing.assert_allclose(found[0], -log_prob[..., 0].sum(), rtol=1e-6)
  np.testing.assert_allclose(
      found[1], -log_prob[..., 1][mask[..., 1]].mean() * 6, rtol=1e-6
  )


STAGES = {
    'kind': 'stages',
    'sequence': {
        'segments': (
            {'label': 'semantic', 'slots': (0,), 'role': 'observe'},
            {
                'label': 'coarse',
                'slots': (1, 2),
                'pattern': {'kind': 'flatten'},
            },
        )
    },
}


@pytest.fixture(scope='module')
def stages():
  objective = _objective(decoder=STAGES)
  return objective, _variables(objective)


def test_stages_score_what_they_predict_given_what_they_observe(stages):
  objective, variables = stages
  assert objective.decoder.predicted == (1, 2)
  batch = _batch(objective)
  output = small.quick_jit(objective.__call__)(
      variables, batch, jax.random.key(0)
  )
  bound = objective.bind(variables)
  scores = bound.score(batch['codes'], batch['num_frames'])['frames']
  valid = np.arange(F) < LENGTHS[:, None]
  np.testing.assert_array_equal(scores.mask[..., 0], False)
  for slot in (1, 2):
    np.testing.assert_array_equal(scores.mask[..., slot], valid)
  nll, count = output.terms['nll']
  assert float(count) == 2 * LENGTHS.sum()
  np.testing.assert_allclose(nll, -scores.log_prob.sum(), rtol=1e-5)
  assert set(output.metrics) == {
      'bits_per_frame',
      'bits_per_frame_codebook_1',
      'bits_per_frame_codebook_2',
  }
  per_row = bound.bits_per_frame(batch['codes'], batch['num_frames'])
  assert np.isnan(per_row[2])
  np.testing.assert_allclose(
      np.nansum(per_row * LENGTHS), float(nll) / math.log(2), rtol=1e-5
  )
  # What is observed counts, the last frame's for the first one, too.
  other = batch['codes'].copy()
  other[0, -1, 0] = (other[0, -1, 0] + 1) % V
  changed = bound.score(other, batch['num_frames'])['frames'].log_prob
  assert abs(changed[0, 0, 1] - scores.log_prob[0, 0, 1]) > 1e-5


def test_a_stage_fills_what_it_predicts(stages):
  objective, variables = stages
  bound, batch = objective.bind(variables), _batch(objective)
  num_frames, shown = batch['num_frames'], np.array([2, 0, 0, 1])
  codes = bound.generate(batch['codes'], num_frames=num_frames, shown=shown)
  valid = np.arange(F) < num_frames[:, None]
  assert (codes[~valid] == 0).all()
  np.testing.assert_array_equal(
      codes[..., 0], np.where(valid, batch['codes'][..., 0], 0)
  )
  given = np.arange(F) < shown[:, None]
  np.testing.assert_array_equal(codes[given], batch['codes'][given])
  # What it is to predict counts for nothing; its seed does.
  other = np.where(given[..., None], batch['codes'], 0)
  other[..., 0] = batch['codes'][..., 0]
  again = bound.generate(other, num_frames=num_frames, shown=shown)
  np.testing.assert_array_equal(codes, again)
  changed = bound.generate(other, num_frames=num_frames, shown=shown, seed=1)
  assert (codes != changed).any()
  with pytest.raises(ValueError, match='frames are given of'):
    bound.generate(other, num_frames=num_frames, shown=num_frames + 1)


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'lengths': {'text': 3}}, r"lengths names \['text'\].*\['frames'\]"),
        ({'weights': {'text': 3.0}}, r"weights names \['text'\]"),
        ({'audio': 'speech'}, r"audio names \['speech'\]"),
        ({'load_balance': 0.01}, 'load_balance = 0.01: the decoder has no'),
        ({'router_z': 0.0}, 'router_z = 0.0: the decoder has no experts'),
    ],
)
def test_options_that_mean_nothing_to_the_decoder_are_refused(fields, message):
  with pytest.raises(config.ConfigError, match=message):
    _objective(**fields)


def test_variables_are_unboxed_ones_of_init(stages):
  objective, variables = stages
  made = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert jax.tree.map(lambda x: x.shape, made['lm']['params']) == jax.tree.map(
      lambda x: x.shape, variables['lm']['params']
  )
