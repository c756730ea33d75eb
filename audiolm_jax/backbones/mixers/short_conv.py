"""The short convolution in front of a recurrence."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.streaming import base as streaming_base


class ShortConv(streaming_base.Steppable):
  """One causal filter a channel, whose buffer stands still where masked.

  `streaming.Conv` takes masked positions for zeros; here a row goes on from
  its last valid position, as prompts of different lengths need.

  Attributes:
    width: taps.
    use_bias: whether a bias is added.
  """

  width: config.Positive = 4
  use_bias: bool = True

  @property
  def receptive_field(self) -> int:
    return self.width

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The last width - 1 inputs."""
    return jnp.zeros((batch, self.width - 1, *spec.shape), spec.dtype)

  @nn.compact
  def process(self, x, mask, state, context):
    del context
    channels = x.shape[-1]
    # torch's: uniform in +-1 / sqrt(taps).
    bound = self.width**-0.5

    def init(rng, shape, dtype):
      return jax.random.uniform(rng, shape, dtype, -bound, bound)

    kernel = ops.weight(
        self, 'kernel', init, (self.width, channels), (None, 'mlp')
    )
    padded = jnp.concatenate([state, x], axis=1)
    y = ops.depthwise_conv(padded, kernel)
    if self.use_bias:
      zeros = nn.initializers.zeros
      bias = ops.weight(self, 'bias', zeros, (channels,), ('mlp',))
      y += ops.materialize(bias, y.dtype)
    if x.shape[1] == 1:
      state = jnp.where(mask[..., None], padded[:, 1:], state)
    else:
      last = jnp.sum(mask, axis=1, dtype=jnp.int32)[:, None]
      index = last + jnp.arange(self.width - 1)
      state = jnp.take_along_axis(padded, index[..., None], axis=1)
    return y, mask, state
