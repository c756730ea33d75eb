"""A layer of a stack: mixer, perhaps attention to a context, perceptron."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import ops
from audiolm_jax.backbones import norms
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base

RESIDUAL = ('batch', 'activation_length', 'activation_embed')
# Of a modulation: factors, offsets, gates.
_PARTS = {'film': 2, 'adaln_zero': 3}


class Block(nn.Module):
  """One layer: each branch is added to the residual stream.

  Attributes:
    mixer: see `stack.Stack`, as the other fields.
  """

  mixer: streaming_base.Steppable
  mlp: nn.Module | None
  cross: nn.Module | None
  norm: norms.Norm
  norm_position: str
  adaptive: str
  shared_modulation: bool
  dropout: float

  @nn.compact
  def __call__(self, x, mask, state, context):
    y, gate = self._before('mixer', x, context)
    if state is None:
      y, _ = self.mixer(y, mask, context)
    else:
      y, _, state = self.mixer.process(y, mask, state, context)
    x = self._after('mixer', x, y, gate)
    if self.cross is not None:
      y, gate = self._before('cross', x, context)
      keys, projected = given(context, 'cross', 'cross'), context.get(
          'cross_keys'
      )
      y = self.cross(y, keys, context['cross_mask'], projected)
      x = self._after('cross', x, y, gate)
    losses = {}
    if self.mlp is not None:
      y, gate = self._before('mlp', x, context)
      y, losses = self.mlp(y, mask)
      x = self._after('mlp', x, y, gate)
    return x, (state, losses)

  def _before(self, name, x, context):
    """The input of a branch, and what its output is multiplied by, or None."""
    y, gate = x, None
    if self.norm_position == 'pre':
      y = self._norm(name, y)
    if self.adaptive != 'none':
      scale, shift, gate = self._modulation(name, x, context)
      y = y * (1 + scale) + shift
    return y, gate

  def _after(self, name, x, y, gate):
    """x and the output of a branch."""
    if gate is not None:
      y *= gate
    if self.dropout and self.has_rng('dropout'):
      y = nn.Dropout(self.dropout, deterministic=False)(y)
    x = sharding.constrain(x + y, RESIDUAL)
    return self._norm(name, x) if self.norm_position == 'post' else x

  def _norm(self, name, x):
    return self.norm.clone(parent=self, name=f'{name}_norm')(x)

  def _modulation(self, name, x, context):
    """Factors, offsets and gates [B, 1 or N, D], all 0 at the start."""
    if self.shared_modulation:
      y = context['modulation'][name]
      init, size = nn.initializers.zeros, y.shape[-1:]
      own = ops.weight(self, f'{name}_modulation_bias', init, size, ('embed',))
      y += ops.materialize(own, y.dtype)
    else:
      width = x.shape[-1]
      y = modulation(self, name, context['film'], width, self.adaptive)
    return (*jnp.split(y, _PARTS[self.adaptive], axis=-1), None)[:3]


def given(context: streaming_base.Context, name: str, field: str) -> Array:
  """context[name], which a stack with `field` can't do without.

  Raises:
    ValueError: if it is not there.
  """
  if context is None or name not in context:
    raise ValueError(
        f"the stack's {field!r} takes context[{name!r}], and the call gives"
        f' none: no condition acts by {name!r}'
    )
  return context[name]


def modulation(
    module: nn.Module,
    name: str,
    film: Float[Array, 'B n C'],
    width: int,
    adaptive: str,
) -> Float[Array, 'B n P*D']:
  """What modulates a branch: factors, offsets and perhaps gates, side by side.

  Args:
    module: the module that owns its weights, which are 0 at the start.
    name: the branch's.
    film: vectors of rows (n = 1) or positions.
    width: D.
    adaptive: see `stack.Stack`.
  """
  return ops.linear(
      module,
      f'{name}_modulation',
      film,
      _PARTS[adaptive] * width,
      (None, 'embed'),
      use_bias=True,
      init=nn.initializers.zeros,
  )
