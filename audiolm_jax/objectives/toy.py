"""A regression small enough to test the whole loop with in a second."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.objectives import base as objectives_base


class _Block(nn.Module):
  """x + tanh(x W + b), a body for nn.scan."""

  width: int

  @nn.compact
  def __call__(self, x, _):
    init = nn.initializers.lecun_normal()
    shape = (self.width, self.width)
    w = ops.weight(self, 'kernel', init, shape, ('embed', 'mlp'))
    b = ops.weight(self, 'bias', nn.initializers.zeros, shape[1:], ('mlp',))
    return x + jnp.tanh(ops.einsum('bnd,de->bne', x, w) + b), None


class _Mlp(nn.Module):
  """[B, N, D] -> [B, N]."""

  width: int
  layers: int

  @nn.compact
  def __call__(self, x):
    init = nn.initializers.lecun_normal()
    shape = (x.shape[-1], self.width)
    w = ops.weight(self, 'input', init, shape, ('embed', 'mlp'))
    x = ops.einsum('bnd,de->bne', x, w)
    blocks = nn.scan(
        _Block,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        length=self.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    x, _ = blocks(self.width, name='blocks')(x, None)
    out = ops.weight(self, 'output', init, (self.width, 1), ('mlp', None))
    return ops.einsum('bnd,de->bne', x, out)[..., 0]


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
  def _model(self):
    return _Mlp(self.width, self.layers)

  def init(self, rng):
    x = jnp.zeros((1, self.positions, self.features))
    params = self._model.init(rng, x)['params']
    return {'mlp': {'params': params, 'state': {'mean': jnp.zeros(())}}}

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
    mlp = variables['mlp']
    return (
        self._model.apply({'params': mlp['params']}, x) + mlp['state']['mean']
    )

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

  def bind(self, variables):
    return Predictor(self, variables)

  def audio_seconds(self, batch):
    return float(len(batch['id']))


@dataclasses.dataclass(frozen=True)
class Predictor:
  """The trained toy."""

  objective: Toy
  variables: objectives_base.Variables

  def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N']:
    return jax.jit(self.objective.predict)(self.variables, x)
