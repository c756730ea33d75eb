"""The norms of decoders."""

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import ops

Kind = Literal['rms', 'layer']


class Norm(nn.Module):
  """RMSNorm (1910.07467, eq. 4) or LayerNorm (1607.06450), in fp32.

  Attributes:
    kind: RMSNorm takes no mean away.
    epsilon: added to the mean square.
    use_bias: whether there is a learned offset beside the learned factor.
    use_scale: whether there is that factor.
  """

  kind: Kind = 'rms'
  epsilon: float = 1e-5
  use_bias: bool = False
  use_scale: Annotated[bool, config.Added()] = True

  @nn.compact
  def __call__(self, x: Float[Array, '*b D']) -> Float[Array, '*b D']:
    shape = x.shape[-1:]
    y = x.astype(jnp.float32)
    if self.kind == 'layer':
      y -= jnp.mean(y, axis=-1, keepdims=True)
    square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(square + self.epsilon)
    if self.use_scale:
      scale = ops.weight(self, 'scale', nn.initializers.ones, shape, (None,))
      y *= ops.materialize(scale)
    if self.use_bias:
      bias = ops.weight(self, 'bias', nn.initializers.zeros, shape, (None,))
      y += ops.materialize(bias)
    return y.astype(x.dtype)
