"""Few jumps of a learned map beside its teacher's steps: clouds in the plane."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax.decoders import time_embedding
from audiolm_jax.evaluation import distributions
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.decoders import small

ROWS = 256
COUNT = 3000
CENTRES, STD = np.array([[2.0, 1.0], [-1.0, 0.5]]), 0.4


def _decoder(**options):
  backbone = small.stack(
      width=32,
      layers=2,
      mixer={'mask_kind': 'bidirectional'},
      adaptive='adaln_zero',
      film_silu=True,
  )
  time = time_embedding.TimeEmbedding(frequencies=8, scale=20.0)
  return decoders.Flow(2, backbone=backbone, time=time, gaps=None, **options)


def _mixture(rng, rows):
  """Three quarters of the rows at the second centre."""
  which, cloud = jax.random.split(rng)
  which = jax.random.bernoulli(which, 0.75, (rows,)).astype(int)
  noise = jax.random.normal(cloud, (rows, 1, 2))
  return jnp.asarray(CENTRES, jnp.float32)[which][:, None] + STD * noise


def _trained(objective, variables, steps, rate):
  """The parameters of 'lm' after so many steps."""
  optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
  num_frames = jnp.ones(ROWS, int)

  def step(carry, rng):
    params, state = carry
    latents, draw = jax.random.split(rng)
    batch = {'latents': _mixture(latents, ROWS), 'num_frames': num_frames}

    def loss(params):
      output = objective({**variables, 'lm': {'params': params}}, batch, draw)
      weights = objective.loss_weights
      return sum(w * jnp.divide(*output.terms[k]) for k, w in weights.items())

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), value

  @jax.jit
  def learn(params):
    rngs = jax.random.split(jax.random.key(1), steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), rngs)

  return learn(variables['lm']['params'])[0][0]


@pytest.fixture(scope='module', name='teacher')
def _teacher():
  objective = objectives.Denoising(decoder=_decoder())
  variables = nn.meta.unbox(objective.init(jax.random.key(0)))
  params = _trained(objective, variables, 800, 4e-3)
  return objective.bind({'lm': {'params': params}})


def _draw(model, steps, solver=None):
  """[COUNT, 2] of the same noise for all models."""
  grid = times_lib.Grid(steps)
  rows = np.ones(COUNT, int)
  return model.generate(1, rows, grid=grid, solver=solver)[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize('term', ['lagrangian', 'mean_flow'])
def test_a_map_in_one_jump_is_its_teacher_in_many_steps(teacher, term):
  terms = {'lagrangian': 0.0, term: 1.0}
  jump = time_embedding.TimeEmbedding(frequencies=8, scale=5.0)
  objective = objectives.FlowMapDistillation(
      decoder=_decoder(jump=jump), **terms
  )
  variables = nn.meta.unbox(objective.init(jax.random.key(2)))
  variables['teacher'] = {'params': teacher.params}
  new = variables['lm']['params']['jump']
  variables['lm'] = {'params': {**teacher.params, 'jump': new}}
  params = _trained(objective, variables, 800, 2e-3)
  student = objective.bind({'lm': {'params': params}})

  exact = _draw(teacher, 32, solvers.Heun())
  data = np.asarray(_mixture(jax.random.key(3), COUNT))[:, 0]
  gap, distance = {}, {}
  for name, model, steps in (
      *(('euler', teacher, n) for n in (1, 2, 4, 64)),
      *(('jumps', student, n) for n in (1, 2, 4)),
  ):
    found = _draw(model, steps)
    # Of the same noise, to where the teacher's flow takes it.
    far = np.sum((found - exact) ** 2, -1)
    gap[name, steps] = np.sqrt(far.mean())
    distance[name, steps] = distributions.kernel_distance(
        data[:1000], found[:1000]
    )
  # Measured: Euler 1.38, .76, .42 in 1, 2, 4 steps and .06 in 64; jumps .14,
  # .11, .06 by the Lagrangian, .20, .13, .13 by MeanFlow.
  jumps = [gap['jumps', n] for n in (1, 2, 4)]
  assert jumps[0] > jumps[1] > jumps[2]
  assert jumps[0] < 0.6 * gap['euler', 4] < 0.3 * gap['euler', 1]
  # Its distribution in one jump is nearer than the teacher's in four: .0001 and
  # .002, of .38, .08, .017 and 0 in 64.
  assert distance['jumps', 1] < 0.3 * distance['euler', 4]
  assert distance['euler', 1] > distance['euler', 2] > distance['euler', 4]
  assert abs(distance['euler', 64]) < 0.003
