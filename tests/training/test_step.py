"""The step: exact accumulation, clipping, EMA, and no update when broken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.data import synthetic
from audiolm_jax.objectives import toy
from audiolm_jax.training import lowering
from audiolm_jax.training import optimizers
from audiolm_jax.training import step as step_lib


def _assembly(accumulation=1, **model):
  settings = train.Config(
      objective=toy.Toy(noise=0.0),
      data=synthetic.Synthetic(),
      models={'mlp': train.ModelTraining(**model)},
      batch_size=8,
      accumulation=accumulation,
  )
  return assembly_lib.Assembly(settings)


@pytest.fixture(scope='module')
def batch():
  batch = synthetic.Synthetic().open(batch_size=8, seed=0, shard=(0, 1))
  batch = batch.next(None)
  # Microbatch 1 of 4 (rows 1 and 5) weighs nothing.
  batch['lengths'][[1, 5]] = 0
  return batch


@pytest.fixture(scope='module')
def state():
  return _assembly(ema=0.9).create()


def _step(assembly, **changes):
  """The compiled step, at the learning rates of its schedules."""
  parts = {
      'objective': assembly.objective,
      'model_optimizers': assembly.model_optimizers,
      'accumulation': assembly.config.accumulation,
  }
  step = step_lib.Step(**parts | changes)
  jitted = jax.jit(step)
  return lambda state, batch: jitted(
      state, batch, step_lib.rates(step.model_optimizers, state.step)
  )


@pytest.fixture(scope='module')
def plain(state, batch):
  return _step(_assembly(ema=0.9))(state, batch)


def _assert_close(a, b, rtol=2e-6):
  jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b
  )


def test_loss_is_formed_from_sums(state, batch, plain):
  """Against the definition, written out in numpy."""
  objective = toy.Toy(noise=0.0)
  variables = state.variables(_assembly(ema=0.9).transforms)
  estimate = np.asarray(objective.predict(variables, batch['x']))
  mask = np.arange(5) < batch['lengths'][:, None]
  error = np.sum(((estimate - batch['y']) * mask) ** 2) / mask.sum()
  size = np.sum((estimate * mask) ** 2) / 8
  scalars = plain[1]['scalars']
  assert scalars['loss'] == pytest.approx(error + 0.01 * size, rel=1e-5)
  assert scalars['term/error'] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize('parts', [2, 4])
def test_accumulation_is_exact_under_unequal_weights(
    state, batch, plain, parts
):
  accumulated = _step(_assembly(parts, ema=0.9))(state, batch)
  _assert_close(accumulated[1]['scalars'], plain[1]['scalars'])
  # Adam's first update is the sign of the gradient, so compare moments too.
  _assert_close(accumulated[0], plain[0], rtol=1e-4)


def test_microbatches_share_out_every_device(batch):
  parts = step_lib.split_batch({'id': jnp.arange(8)}, 2)['id']
  assert parts.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_the_batch_average_of_means_would_differ(state, batch, plain):
  """The test above can fail: weights here are unequal enough."""
  whole = plain[1]['scalars']['term/error']
  step = _step(_assembly(ema=0.9))
  halves = [
      step(state, {k: v[i::2] for k, v in batch.items()})[1]['scalars']
      for i in range(2)
  ]
  mean = np.mean([h['term/error'] for h in halves])
  assert abs(mean - whole) > 1e-3 * whole


def test_not_additive_refuses_accumulation(state):
  class Other(toy.Toy):
    additive = False

  with pytest.raises(ValueError, match='additive'):
    step_lib.Step(Other(), {}, accumulation=2)
  settings = dataclasses.replace(_assembly(2).config, objective=Other())
  with pytest.raises(config.ConfigError, match='accumulation = 2'):
    assembly_lib.Assembly(settings)


def test_finish_runs_once_on_added_statistics(state, batch, plain):
  mask = np.arange(5) < batch['lengths'][:, None]
  mean = np.sum(batch['y'] * mask) / mask.sum()
  for parts in (1, 4):
    new, _ = _step(_assembly(parts, ema=0.9))(state, batch)
    assert float(new.model_state['mlp']['mean']) == pytest.approx(
        0.1 * mean, rel=1e-5
    )


def test_clipping_scales_the_whole_gradient(state, batch):
  sgd = optax.sgd(1.0)
  moved = {}
  for clip in (None, 0.1):
    assembly = _assembly()
    model_optimizer = dataclasses.replace(
        assembly.model_optimizers['mlp'], optimizer=lambda _: sgd, clip=clip
    )
    start = state.replace(
        optimizer_state={'mlp': sgd.init(state.trainable['mlp'])}, ema={}
    )
    step = _step(assembly, model_optimizers={'mlp': model_optimizer})
    new, metrics = step(start, batch)
    moved[clip] = jax.tree.map(jnp.subtract, new.trainable, start.trainable)
  norm = float(metrics['scalars']['gradient_norm/mlp'])
  assert norm > 0.2
  assert float(optax.global_norm(moved[0.1])) == pytest.approx(0.1, rel=1e-4)
  _assert_close(
      jax.tree.map(lambda x: x * (0.1 / norm), moved[None]), moved[0.1], 1e-4
  )


def test_ema_follows_its_recurrence(state, batch):
  step = _step(_assembly(ema=0.9))
  ema, current = state.ema, state
  for t in range(3):
    current, _ = step(current, batch)
    decay = min(0.9, (1 + t) / (10 + t))
    ema = jax.tree.map(
        lambda e, p, d=decay: d * e + (1 - d) * p, ema, current.trainable
    )
  _assert_close(current.ema, ema, 1e-5)
  averaged = current.variables(_assembly(ema=0.9).transforms)
  last = current.variables(_assembly(ema=0.9).transforms, ema=False)
  _assert_close(averaged['mlp']['params'], current.ema['mlp'])
  _assert_close(last['mlp']['params'], current.trainable['mlp'])


@pytest.mark.parametrize('parts', [1, 2])
def test_not_finite_changes_nothing(state, batch, parts):
  broken = {**batch, 'x': np.full_like(batch['x'], np.nan)}
  new, metrics = _step(_assembly(parts, ema=0.9))(state, broken)
  jax.tree.map(np.testing.assert_array_equal, new, state)
  bad = {name for name, ok in metrics['finite'].items() if not ok}
  assert {'term/error', 'gradient/mlp/blocks'} <= bad
  # The targets are fine, and so is their mean.
  assert 'state/mlp' not in bad


def test_an_overflowing_moment_is_not_kept(state, batch):
  """A gradient of 1e25 is finite, its square is not."""

  class Steep(toy.Toy):

    @property
    def loss_weights(self):
      return {'error': 1e25, 'size': 0.0}

  assembly = _assembly(ema=0.9)
  step = _step(assembly, objective=Steep(noise=0.0))
  new, metrics = step(state, batch)
  bad = [name for name, ok in metrics['finite'].items() if not ok]
  assert bad == ['parameters/mlp']
  jax.tree.map(np.testing.assert_array_equal, new, state)


def test_gradient_of_one_group_is_named(state, batch):
  """A finite loss with a gradient that is not, in one module only."""

  class Sharp(toy.Toy):

    def __call__(self, variables, batch, rng):
      out = super().__call__(variables, batch, rng)
      w = variables['mlp']['params']['output']
      # sqrt at 0: the value is 0, the derivative infinite.
      spike = jnp.sum(jnp.sqrt(jnp.abs(w - jax.lax.stop_gradient(w))))
      value, weight = out.terms['error']
      return out.replace(terms={**out.terms, 'error': (value + spike, weight)})

  assembly = _assembly(ema=0.9)
  step = _step(assembly, objective=Sharp(noise=0.0))
  new, metrics = step(state, batch)
  bad = [name for name, ok in metrics['finite'].items() if not ok]
  assert bad == ['gradient/mlp/output', 'parameters/mlp']
  jax.tree.map(np.testing.assert_array_equal, new, state)


def test_every_step_has_its_own_randomness(batch):
  settings = dataclasses.replace(_assembly().config, objective=toy.Toy(noise=1))
  assembly = assembly_lib.Assembly(
      dataclasses.replace(
          settings,
          models={
              'mlp': train.ModelTraining(
                  schedule=optimizers.Constant(learning_rate=0.0)
              )
          },
      )
  )
  step, state = _step(assembly), assembly.create()
  losses = []
  for _ in range(2):
    state, metrics = step(state, batch)
    losses.append(float(metrics['scalars']['term/error']))
  assert losses[0] != losses[1]


def test_a_batch_that_weighs_nothing_has_no_loss_and_moves_nothing(
    state, batch
):
  empty = {**batch, 'lengths': np.zeros_like(batch['lengths'])}
  new, metrics = _step(_assembly(ema=0.9))(state, empty)
  assert all(bool(finite) for finite in metrics['finite'].values())
  assert all(np.isfinite(value) for value in metrics['scalars'].values())
  assert float(metrics['scalars']['gradient_norm/mlp']) == 0
  assert int(new.step) == int(state.step) + 1


def test_learning_rate_and_seed_are_inputs_of_one_program():
  """So that a sweep over both compiles once."""
  programs = set()
  for rate, seed in ((1e-3, 0), (3e-2, 1)):
    settings = dataclasses.replace(
        _assembly(schedule=optimizers.Cosine(learning_rate=rate)).config,
        seed=seed,
    )
    lowered = lowering.lowered_step(settings, settings.mesh.build())
    programs.add(lowered.as_text())
  assert len(programs) == 1


def test_rates_are_those_of_the_schedules(state, batch):
  schedule = optimizers.Linear(learning_rate=0.1, final=0.0)
  assembly = _assembly(schedule=schedule, ema=0.9)
  half = state.replace(step=jnp.int32(500))
  rates = step_lib.rates(assembly.model_optimizers, half.step)
  assert float(rates['mlp']) == pytest.approx(0.05)
  _, metrics = _step(assembly)(half, batch)
  assert float(metrics['scalars']['learning_rate/mlp']) == pytest.approx(0.05)
