"""Distillation to jumps: what it is of, whom it moves, and from which run."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax import param_transforms
from audiolm_jax import train
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import time_embedding
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights
from tests.data import made_caches
from tests.decoders import small

B, F, D = 4, 6, 2
LENGTHS = np.array([F, 3, 1, 5], np.int32)
EXISTS = np.arange(F) < LENGTHS[:, None]
FLOW = gaussian.RectifiedFlow()
JUMP = time_embedding.TimeEmbedding(frequencies=4, scale=3.0)
BOTH = {'lagrangian': 1.0, 'mean_flow': 0.5}


def _decoder(dropout=None, **options):
  backbone = small.stack(
      mixer={'mask_kind': 'bidirectional'},
      adaptive='adaln_zero',
      film_silu=True,
  )
  conditions = {}
  if dropout is not None:
    conditions['voice'] = conditioners.Class(
        how='add', source=factors.Name(('a', 'b')), dropout=dropout
    )
  options = {'jump': JUMP, 'gaps': gaps_lib.Gaps(0.4, 0.4), **options}
  time = time_embedding.TimeEmbedding(frequencies=8, scale=5.0)
  return decoders.Flow(
      D, backbone=backbone, time=time, conditions=conditions, **options
  )


def _objective(decoder=None, **options):
  decoder = decoder or _decoder()
  return objectives.FlowMapDistillation(
      decoder=decoder, frames=F, rate=50.0, **{**BOTH, **options}
  )


def _batch(objective, seed=0):
  rng = np.random.default_rng(seed)
  batch = objective.decoder.example_batch(B, F)
  batch |= {
      'latents': rng.normal(size=(B, F, D)).astype(np.float32),
      'num_frames': LENGTHS,
      'id': np.arange(B, dtype=np.int32),
  }
  for name, value in batch.items():
    if name.startswith('conditions') or name.endswith('lengths'):
      batch[name] = np.ones_like(value)
  return batch


def _variables(objective, fresh=True):
  """Of both models; a fresh student is as its teacher, a second time beside."""
  batch = _batch(objective)
  inputs = batch['latents'], np.ones(B, np.float32), LENGTHS
  extra = None, None, None, objective.decoder.read(batch)[2]

  def parameters(decoder, seed):
    return small.parameters(
        decoder, *inputs, *extra, seed=seed, method='predict'
    )

  teacher = parameters(objective.teacher, 0)
  student = parameters(objective.decoder, 1)
  if fresh:
    boxed = jax.jit(objective.init)(jax.random.key(0))['lm']['params']
    student = {**teacher, 'jump': nn.meta.unbox(boxed)['jump']}
  return {'lm': {'params': student}, 'teacher': {'params': teacher}}


def _draws(objective, seed=0):
  latents = _batch(objective)['latents']
  draw = small.quick_jit(objective.draw)
  return draw(jax.random.key(seed), latents, LENGTHS)


def _errors(objective, variables, draws, batch=None, rngs=None):
  batch = batch or _batch(objective)
  run = small.quick_jit(objective.map_errors)
  return jax.device_get(run(variables, batch, draws, rngs))


def _velocity(objective, variables, draws, conditions='batch'):
  """The teacher's, (z, t) -> [B, F, D]; of given frames, their own."""
  batch = _batch(objective)
  x, num_frames, given = objective.decoder.read(batch)
  x = jnp.where(EXISTS[..., None], x, 0)
  params = {'params': variables['teacher']['params']}
  given = given if conditions == 'batch' else None

  def velocity(z, t):
    found = objective.teacher.apply(
        params,
        *(z, t, num_frames, x, draws.hidden),
        conditions=given,
        method='predict',
    )
    return jnp.where(draws.hidden[..., None], found, draws.e - x)

  velocity = jax.jit(velocity)
  return FLOW.corrupt(x, draws.e, draws.t), velocity


def test_a_student_starts_without_error_where_it_does_not_jump():
  objective = _objective(diagonal=1.0)
  draws = _draws(objective)
  np.testing.assert_array_equal(draws.s, draws.t)
  errors = _errors(objective, _variables(objective), draws)
  assert errors.keys() == BOTH.keys()
  for error in errors.values():
    np.testing.assert_allclose(error, 0, atol=1e-10)
  # Any other student is matched to the teacher's velocity.
  variables = _variables(objective, fresh=False)
  found = _errors(objective, variables, draws)
  z, velocity = _velocity(objective, variables, draws)
  predict = functools.partial(objective.decoder.apply, method='predict')
  output = small.quick_jit(predict)(
      {'params': variables['lm']['params']},
      *(z, draws.t, LENGTHS, _batch(objective)['latents'], draws.hidden),
  )
  expected = np.mean((output - velocity(z, draws.t)) ** 2, -1)
  for error in found.values():
    np.testing.assert_allclose(
        error, np.where(draws.hidden, expected, 0), rtol=1e-4, atol=1e-5
    )


def test_what_jumps_cost_a_student_as_it_starts():
  """Its mean velocity is that at t: both losses by their formulae."""
  objective = _objective(diagonal=0.0)
  draws, variables = _draws(objective), _variables(objective)
  assert (draws.s < draws.t).all() and not draws.hidden[EXISTS].all()
  z, velocity = _velocity(objective, variables, draws)
  v = velocity(z, draws.t)
  length = (draws.t - draws.s)[:, None, None]
  moved = velocity(z - length * v, draws.s)
  along = jax.jvp(velocity, (z, draws.t), (v, jnp.ones(B)))[1]
  expected = {
      'lagrangian': np.mean((v - moved) ** 2, -1),
      'mean_flow': np.mean((length * along) ** 2, -1),
  }
  found = _errors(objective, variables, draws)
  for name, error in expected.items():
    error = np.where(draws.hidden, error, 0)
    np.testing.assert_allclose(found[name], error, rtol=2e-3, atol=1e-5)
    assert (found[name] > 1e-6).sum() == draws.hidden.sum()


def test_guidance_of_the_teacher_becomes_the_students():
  plain = _objective(_decoder(dropout=0.5), diagonal=1.0, mean_flow=0.0)
  guided = dataclasses.replace(plain, guidance=guidance_lib.Plain(3.0))
  variables, draws = _variables(plain), _draws(plain)
  np.testing.assert_allclose(
      _errors(plain, variables, draws)['lagrangian'], 0, atol=1e-10
  )
  z, velocity = _velocity(plain, variables, draws)
  _, null = _velocity(plain, variables, draws, None)
  change = 2 * (velocity(z, draws.t) - null(z, draws.t))
  expected = np.where(draws.hidden, np.mean(change**2, -1), 0)
  found = _errors(guided, variables, draws)['lagrangian']
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
  # A row that lacks its condition learns of a teacher that lacks it.
  rngs = {'conditions': jax.random.key(1), 'dropout': jax.random.key(2)}
  dropped = _errors(guided, variables, draws, rngs=rngs)['lagrangian'].sum(1)
  full = expected.sum(1)
  lacks = dropped < 1e-6 * full
  assert 0 < lacks.sum() < B
  np.testing.assert_allclose(dropped[~lacks], full[~lacks], rtol=1e-3)
  # Without guidance the two lack the same, too.
  same = _errors(plain, variables, draws, rngs=rngs)['lagrangian']
  np.testing.assert_allclose(same, 0, atol=1e-10)


def test_terms_are_sums_over_hidden_frames_and_the_teacher_stays():
  objective = _objective(power=1.0, offset=0.1, weight=weights.MinSnr())
  batch, variables = _batch(objective), _variables(objective)
  rng = jax.random.key(3)

  @small.quick_jit
  def run(variables):
    output = objective(variables, batch, rng)
    return sum(total for total, _ in output.terms.values()), output

  (_, output), gradient = small.quick_jit(
      jax.value_and_grad(run.__wrapped__, has_aux=True)
  )(variables)
  draws = objective.draw(jax.random.split(rng, 3)[0], batch['latents'], LENGTHS)
  errors = _errors(objective, variables, draws)
  counts = np.asarray(draws.hidden).sum(1)
  assert output.terms.keys() == objective.loss_weights.keys() == BOTH.keys()
  assert objective.loss_weights == BOTH
  for name, error in errors.items():
    rows = error.sum(1) / counts
    total, count = output.terms[name]
    expected = (counts * rows / (rows + 0.1)).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert int(count) == counts.sum()
    plain, count = output.metrics[f'{name}_error']
    np.testing.assert_allclose(plain, error.sum(), rtol=1e-4)
    assert int(count) == counts.sum()
  assert [int(x) for x in output.metrics['hidden']] == [counts.sum(), 15]
  teacher = jax.tree.leaves(gradient['teacher'])
  assert all(not np.any(leaf) for leaf in teacher)
  student = gradient['lm']['params']
  assert np.abs(student['jump']['outer']).max() > 1e-6
  assert np.abs(student['denoised']).max() > 1e-6


def test_the_weight_is_of_the_time_that_is_jumped_from():
  plain = _objective()
  weighted = dataclasses.replace(plain, weight=weights.MinSnr())
  variables, draws = _variables(plain), _draws(plain)
  factor = weighted.weight.factor(FLOW, 'u', draws.t)[:, None]
  one, other = (_errors(o, variables, draws) for o in (plain, weighted))
  for name, error in one.items():
    np.testing.assert_allclose(other[name], factor * error, rtol=1e-5)


def test_rows_are_by_themselves_and_nan_past_their_ends_reaches_nothing():
  objective = _objective()
  batch, draws = _batch(objective), _draws(objective)
  variables = _variables(objective, fresh=False)
  batch['latents'] = np.where(EXISTS[..., None], batch['latents'], np.nan)
  whole = _errors(objective, variables, draws, batch)
  for i in (0, 2):
    half = jax.tree.map(lambda x, i=i: x[i : i + 2], (batch, draws))
    part = _errors(objective, variables, half[1], half[0])
    for name, error in whole.items():
      assert np.isfinite(error).all()
      np.testing.assert_array_equal(error[~np.asarray(draws.hidden)], 0)
      np.testing.assert_allclose(
          part[name], error[i : i + 2], rtol=1e-3, atol=1e-4
      )


def test_draws_are_those_of_denoising_with_pairs_of_times():
  objective = _objective(density=times_lib.LogitNormal(), diagonal=0.25)
  rng, batch = jax.random.key(5), _batch(objective)
  draws = small.quick_jit(objective.draw)(rng, batch['latents'], LENGTHS)
  plain = small.quick_jit(objectives.Denoising(objective.decoder).draw)(
      jax.random.split(rng)[0], batch['latents'], LENGTHS
  )
  np.testing.assert_array_equal(draws.e, plain.e)
  np.testing.assert_array_equal(draws.hidden, plain.hidden)
  latents = np.zeros((400, 1, D), np.float32)
  many = small.quick_jit(objective.draw)(rng, latents, np.ones(400, int))
  assert (many.s <= many.t).all()
  assert np.mean(many.s == many.t) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'decoder': _decoder(jump=None)}, 'needs a second time'),
        ({'lagrangian': 0.0, 'mean_flow': 0.0}, 'nothing is left'),
        ({'guidance': guidance_lib.Plain()}, 'without conditions'),
    ],
)
def test_what_would_teach_nothing_is_refused(options, message):
  with pytest.raises(config.ConfigError, match=message):
    _objective(**options)


# -- from a run ----------------------------------------------------------------


def _cache(directory):
  def example(split, i):
    rng = np.random.default_rng([len(split), i])
    latents = rng.normal(3, 2, size=(8, D)).astype(np.float32)
    return made_caches.encoding.Example(
        latents=latents, samples=8 * 320, factors={'id': f'{split}{i}'}
    )

  spec = made_caches.spec(dimension=D, hop=320)
  clips = {'train': 8}
  identity = made_caches.identity((), clips, spec=spec)
  return made_caches.write(directory, identity, example)


def _run(cache, objective, models, **options):
  return train.Config(
      objective=objective,
      data=data.TokenCrops(cache=cache, frames=5),
      models=models,
      batch_size=4,
      log_every=1,
      **options,
  )


def test_a_student_starts_from_a_run_and_its_teacher_stays(tmp_path):
  cache, base = _cache(tmp_path / 'cache'), tmp_path / 'base'
  flow = objectives.Denoising(decoder=_decoder(jump=None))
  train.train(_run(cache, flow, {'lm': train.ModelTraining()}, steps=2), base)
  student = train.ModelTraining(init_from=str(base), init_fresh=('^jump/',))
  teacher = train.ModelTraining(
      init_from=str(base),
      init_model='lm',
      param_transform=param_transforms.Frozen(),
  )
  objective = objectives.FlowMapDistillation(decoder=_decoder(), **BOTH)

  def settings(student=student, **options):
    models = {'lm': student, 'teacher': teacher}
    return _run(cache, objective, models, steps=2, accumulation=2, **options)

  state = config.build(train.Config, settings()).assemble().create()
  old = audiolm_jax.load(base).params
  start = dict(state.trainable['lm'])
  jump = start.pop('jump')
  same = jax.tree.map(np.array_equal, start, old)
  assert all(jax.tree.leaves(same))
  assert not np.any(jump['outer']) and np.any(jump['inner'])

  results = train.train(settings(), tmp_path / 'student')
  assert np.isfinite(results['loss'])
  assembly, state = assembly_lib.restore(tmp_path / 'student')
  kept = assembly.variables(state)['teacher']['params']
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, kept, old)))
  model = audiolm_jax.load(tmp_path / 'student')
  assert np.any(model.params['jump']['outer'])
  found = model.generate(5, [5, 3], grid=times_lib.Grid(2))
  assert found.shape == (2, 5, D) and np.isfinite(found).all()

  for fresh, message in (
      ((), 'missing: params.jump.inner'),
      (('^jump/outer',), 'missing: params.jump.inner'),
      (('nowhere',), "'nowhere' matches no parameter"),
  ):
    wrong = dataclasses.replace(student, init_fresh=fresh)
    with pytest.raises(config.ConfigError, match=message):
      config.build(train.Config, settings(wrong)).assemble().create()
  alone = train.ModelTraining(init_fresh=('^jump/',))
  with pytest.raises(config.ConfigError, match='init_fresh = .* is of a run'):
    train.train(settings(alone), tmp_path / 'alone')
