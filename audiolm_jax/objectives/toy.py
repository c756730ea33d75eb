"""A regression small enough to test the whole loop with in a second."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax.models import kinds
from audiolm_jax.models import toy
from audiolm_jax.objectives import base as objectives_base


@dataclasses.dataclass(frozen=True)
class Toy(objectives_base.Objective):
  """Squared error of y [B, N] given x [B, N, D], at n < lengths [B].

  The state holds a running mean of y, which the model's output is added to, so
  that `finish` matters to the loss. Noise on x makes the random key matter.

  Attributes:
    features: D.
    positions: N.
    width: of the hidden layers.
    layers: how many, scanned over.
    noise: standard deviation added to x.
    decay: of the running mean.
  """

  features: config.Positive = 4
  positions: config.Positive = 5
  width: config.Positive = 8
  layers: config.Positive = 2
  noise: config.NonNegative = 0.01
  decay: config.Share = 0.9

  @property
  def loss_weights(self):
    return {'error': 1.0, 'size': 0.01}

  @property
  def model(self):
    module = toy.Mlp(self.features, self.width, self.layers)
    return 'mlp', kinds.Description(module)

  def init(self, rng):
    name, description = self.model
    return {name: description.init(rng)}

  def example_batch(self, batch_size):
    shape = (batch_size, self.positions)
    return {
        'x': jnp.zeros((*shape, self.features)),
        'y': jnp.zeros(shape),
        'lengths': jnp.zeros(batch_size, jnp.int32),
        'id': jnp.zeros(batch_size, jnp.int32),
    }

  def predict(
      self, variables: objectives_base.Variables, x: Float[Array, 'B N D']
  ) -> Float[Array, 'B N']:
    """The model's estimate of y."""
    name, description = self.model
    return description.module.predict(variables[name], x)

  def __call__(self, variables, batch, rng):
    x, y = batch['x'], batch['y']
    keys = jax.vmap(lambda i: jax.random.fold_in(rng, i))(batch['id'])
    noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(keys)
    x = x + self.noise * noise
    mask = jnp.arange(self.positions) < batch['lengths'][:, None]
    estimate = self.predict(variables, x)
    # where before arithmetic: padding may hold anything.
    error = jnp.where(mask, estimate - y, 0.0)
    weight = jnp.sum(mask).astype(jnp.float32)
    square = jnp.sum(error**2)
    size = jnp.sum(jnp.where(mask, estimate, 0.0) ** 2)
    return objectives_base.Output(
        terms={
            'error': (square, weight),
            'size': (size, jnp.float32(len(y))),
        },
        statistics={'sum': jnp.sum(jnp.where(mask, y, 0.0)), 'count': weight},
        metrics={'absolute_error': (jnp.sum(jnp.abs(error)), weight)},
    )

  def finish(self, states, statistics, rng):
    del rng
    count = jnp.maximum(statistics['count'], 1.0)
    mean = statistics['sum'] / count
    old = states['mlp']['mean']
    return {'mlp': {'mean': self.decay * old + (1 - self.decay) * mean}}

  def audio_seconds(self, batch):
    return float(len(batch['id']))
