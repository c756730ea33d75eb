"""A regression that trains in a second: the smallest model, for tests."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import ops


class _Block(nn.Module):
  """x + tanh(x W + b), a body for nn.scan."""

  width: int

  @nn.compact
  def __call__(self, x, _):
    axes = ('embed', 'mlp')
    y = ops.linear(self, 'kernel', x, self.width, axes, use_bias=True)
    return x + jnp.tanh(y), None


class Mlp(nn.Module):
  """x [B, N, D] -> y [B, N]; its state holds a mean that is added to y.

  Attributes:
    features: D.
    width: of the hidden layers.
    layers: how many, scanned over.
  """

  features: config.Positive = 4
  width: config.Positive = 8
  layers: config.Positive = 2

  @nn.compact
  def __call__(self, x):
    x = ops.linear(self, 'input', x, self.width, ('embed', 'mlp'))
    blocks = nn.scan(
        _Block,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        length=self.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    x, _ = blocks(self.width, name='blocks')(x, None)
    return ops.linear(self, 'output', x, 1, ('mlp', None))[..., 0]

  def fresh(self, rng: Array) -> dict[str, Any]:
    """Variables {'params', 'state'} at the start of training."""
    params = self.init(rng, jnp.zeros((1, 1, self.features)))['params']
    return {'params': params, 'state': {'mean': jnp.zeros(())}}

  def predict(
      self, variables: dict[str, Any], x: Float[Array, 'B N D']
  ) -> Float[Array, 'B N']:
    """The model's estimate of y."""
    y = self.apply({'params': variables['params']}, x)
    return y + variables['state']['mean']


@dataclasses.dataclass(frozen=True)
class Predictor:
  """The toy with its variables: what `audiolm_jax.load` returns.

  Attributes:
    module: the model.
    variables: {'params', 'state'}.
  """

  module: Mlp
  variables: dict[str, Any]

  def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N']:
    return jax.jit(self.module.predict)(self.variables, x)
