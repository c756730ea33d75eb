"""A dilated causal convolution whose steps cost the same at any dilation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers


class RingConv(streaming_base.Steppable):
  """`layers.Conv(features, width, dilation=dilation)` with another state.

  Parameters and outputs are the same. `Conv` moves all of its past at every
  step: O(width dilation). Here a step of one position writes one place of a
  ring and reads `width` of them. The place is written first and all taps are
  read from what was written: only then does XLA update a loop's state in place
  (reading first costs a copy of the ring a step).

  Longer steps put the ring in order first, and cost what those of `Conv` do.

  Attributes:
    features: output channels.
    width: taps, spaced by `dilation`.
    dilation: spacing of taps.
    use_bias: whether a bias is added.
  """

  features: int
  width: int
  dilation: int = 1
  use_bias: bool = True

  @property
  def receptive_field(self) -> int:
    return (self.width - 1) * self.dilation + 1

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.features,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The last positions, and the place in the ring that is written next."""
    shape = (batch, self.receptive_field, *spec.shape)
    return {
        'ring': jnp.zeros(shape, spec.dtype),
        'next': jnp.zeros(batch, jnp.int32),
    }

  def process(self, x, mask, state, context):
    del context
    ring, place = state['ring'], state['next']
    size = self.receptive_field
    if x.shape[1] == 1:
      rows = jnp.arange(x.shape[0])
      ring = ring.at[rows, place].set(
          x[:, 0], unique_indices=True, mode='promise_in_bounds'
      )
      place = (place + 1) % size
      # The place after the newest holds the oldest.
      taps = jnp.arange(self.width) * self.dilation
      taps = (place[:, None] + taps) % size
      window = ring.at[rows[:, None], taps].get(mode='promise_in_bounds')
      y = self._convolve(window, spread=False)
    else:
      order = (place[:, None] + jnp.arange(size)) % size
      order = order.reshape(*order.shape, *[1] * (ring.ndim - 2))
      past = jnp.take_along_axis(ring, order, axis=1)
      past = jnp.concatenate([past, x], axis=1)
      y = self._convolve(past[:, 1:], spread=True)
      ring, place = past[:, -size:], jnp.zeros_like(place)
    return y, mask, {'ring': ring, 'next': place}

  def __call__(self, x, mask, context=None):
    del context
    x = streaming_base.zero_masked(x, mask)
    x = streaming_base.pad_time(x, self.receptive_field - 1, 0)
    return self._convolve(x, spread=True), mask

  @nn.compact
  def _convolve(self, x, spread):
    """[B, T, C] with its past, or the taps [B, width, C] of one position."""
    channels = x.shape[-1]
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2),
        (self.width, channels, self.features),
        (None, 'channels_in', 'channels_out'),
    )
    if spread:
      y = ops.conv(x, kernel, dilation=self.dilation)
    else:
      # Letters in this order: else the kernel is transposed at every step.
      y = ops.einsum('bij,ijo->bo', x, kernel)[:, None]
    if self.use_bias:
      y = y + streaming_layers.bias(self, self.features, y.dtype)
    return y
