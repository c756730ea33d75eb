"""Perceptrons: what each position of a decoder does by itself."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.ops import moe

Losses = dict[str, Float[Array, 'B']]
Activation = Literal[
    'gelu', 'gelu_tanh', 'relu', 'silu', 'swiglu', 'clamped_swiglu'
]
# A matrix for each expert.
_STACK = nn.initializers.lecun_normal(batch_axis=0)
# Kinds with a gate.
GATED = ('swiglu', 'clamped_swiglu')


def activate(
    kind: Activation,
    up: Float[Array, '*b F'],
    gate: Float[Array, '*b F'] | None = None,
    limit: float = 7.0,
    alpha: float = 1.702,
) -> Float[Array, '*b F']:
  """What the hidden layer gives.

  Args:
    kind: gelu is exact, gelu_tanh GPT-2's approximation; swiglu is up silu(gate)
      (2002.05202, eq. 6), clamped_swiglu gpt-oss's (up + 1) gate sigmoid(alpha
      gate), with gate at most `limit` and up within +-`limit`.
    up: what the first layer gives, before the activation.
    gate: what the gate's layer gives; None for kinds without one.
    limit: of clamped_swiglu's gate, and of `up` on both sides.
    alpha: of clamped_swiglu's sigmoid(alpha gate).
  """
  if kind == 'swiglu':
    return up * jax.nn.silu(gate)
  if kind == 'clamped_swiglu':
    gate = jnp.minimum(gate, limit)
    up = jnp.clip(up, -limit, limit)
    return (up + 1) * gate * jax.nn.sigmoid(alpha * gate)
  if kind in ('gelu', 'gelu_tanh'):
    return jax.nn.gelu(up, approximate=kind == 'gelu_tanh')
  return jax.nn.relu(up) if kind == 'relu' else jax.nn.silu(up)


class Dense(nn.Module):
  """Two layers, the first of them gated for 'swiglu' and 'clamped_swiglu'.

  Attributes:
    hidden: width of the hidden layer.
    activation: see `activate`. On CPUs relu's gradient is 1.7x faster.
    limit: of clamped_swiglu.
    alpha: of clamped_swiglu.
    use_bias: whether the layers have biases.
  """

  hidden: config.Positive = 1024
  activation: Activation = 'swiglu'
  limit: float = 7.0
  alpha: float = 1.702
  use_bias: bool = False

  @nn.compact
  def __call__(
      self, x: Float[Array, 'B N D'], mask: Bool[Array, 'B N']
  ) -> tuple[Float[Array, 'B N D'], Losses]:
    """Outputs, and what it adds to the loss: nothing."""
    del mask
    into = self.hidden, ('embed', 'mlp'), self.use_bias
    up, gate = ops.linear(self, 'up', x, *into), None
    if self.activation in GATED:
      gate = ops.linear(self, 'gate', x, *into)
    h = activate(self.activation, up, gate, self.limit, self.alpha)
    out = x.shape[-1], ('mlp', 'embed'), self.use_bias
    return ops.linear(self, 'down', h, *out), {}


class Moe(nn.Module):
  """Of several perceptrons, each position's router chooses some.

  Attributes:
    experts: how many perceptrons.
    top_k: how many of them a position meets.
    hidden: see `Dense`, as activation, limit, alpha and use_bias.
    router_bias: whether the router has a bias.
    normalise: see `ops.moe.route`.
  """

  experts: config.Positive = 8
  top_k: config.Positive = 2
  hidden: config.Positive = 512
  activation: Activation = 'swiglu'
  limit: float = 7.0
  alpha: float = 1.702
  use_bias: bool = False
  router_bias: bool = False
  normalise: Literal['top_k', 'all'] = 'top_k'

  @nn.compact
  def __call__(
      self, x: Float[Array, 'B N D'], mask: Bool[Array, 'B N']
  ) -> tuple[Float[Array, 'B N D'], Losses]:
    """Outputs, and for each row the sums of `load_balance` and `router_z`.

    Masked positions go to no expert, get zeros and count in no loss.

    Raises:
      ValueError: if there are fewer experts than a position is to meet.
    """
    if self.top_k > self.experts:
      raise ValueError(f'top_k = {self.top_k} of {self.experts} experts')
    # Small differences of logits decide: fp32.
    logits = ops.linear(
        self,
        'router',
        x.astype(jnp.float32),
        self.experts,
        ('embed', None),
        self.router_bias,
    )
    routing = moe.route(logits, self.top_k, self.normalise)
    y = moe.dispatch(x, mask, routing, self.experts, self._experts)
    losses = {
        'load_balance': moe.load_balance(logits, mask, routing),
        'router_z': moe.router_z(logits, mask),
    }
    return y, losses

  def _experts(self, rows, sizes, expert):
    up = self._layer(rows, sizes, expert, 'up', self.hidden)
    gate = None
    if self.activation in GATED:
      gate = self._layer(rows, sizes, expert, 'gate', self.hidden)
    h = activate(self.activation, up, gate, self.limit, self.alpha)
    return self._layer(h, sizes, expert, 'down', rows.shape[-1])

  def _layer(self, rows, sizes, expert, name, features):
    axes = ('experts', 'embed', 'mlp')
    if name == 'down':
      axes = ('experts', 'mlp', 'embed')
    shape = (self.experts, rows.shape[-1], features)
    w = ops.weight(self, name, _STACK, shape, axes)
    y = ops.ragged_dot(rows, w, sizes)
    if self.use_bias:
      init = nn.initializers.zeros
      shape, axes = (self.experts, features), ('experts', axes[2])
      bias = ops.weight(self, f'{name}_bias', init, shape, axes)
      y += ops.materialize(bias, y.dtype)[expert]
    return y


MLPS = {'dense': Dense, 'moe': Moe}
