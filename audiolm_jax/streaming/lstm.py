"""Long short-term memory over time, as EnCodec and SpeechTokenizer have it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.ops import recurrence
from audiolm_jax.streaming import base as streaming_base


class Lstm(streaming_base.Steppable):
  """A stack of LSTM layers as wide as its input, with a skip around the stack.

  Parameters are torch.nn.LSTM's, transposed: layer_n/input [in, 4 D],
  layer_n/recurrent [D, 4 D], layer_n/input_bias and layer_n/recurrent_bias
  [4 D], gates in the order input, forget, cell, output; the direction back in
  time in layer_n_reverse. Only the step forward in time steps.

  Attributes:
    layers: how many.
    bidirectional: read both ways, each row back from its own end. The output
      then holds both directions, [B, T, 2 D].
    skip: add the input to the output (twice side by side if bidirectional).
  """

  layers: int = 2
  bidirectional: bool = False
  skip: bool = True

  @property
  def steppable(self) -> bool:
    return not self.bidirectional

  @property
  def receptive_field(self) -> None:
    return None

  @nn.nowrap
  def output_spec(self, spec):
    width = spec.shape[0] * (1 + self.bidirectional)
    return jax.ShapeDtypeStruct((width,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    """(h, c) of each layer, and of each direction."""
    zeros = jnp.zeros((batch, *spec.shape), spec.dtype)
    return ((zeros, zeros),) * (self.layers * (1 + self.bidirectional))

  def process(self, x, mask, state, context):
    del context
    y, state = self._run(x, mask, state)
    return y, mask, state

  def __call__(self, x, mask, context=None):
    del context
    x = streaming_base.zero_masked(x, mask)
    state = self.initial_state(x.shape[0], streaming_base.position_spec(x))
    y, _ = self._run(x, mask, state)
    return y, mask

  @nn.compact
  def _run(self, x, mask, state):
    names = ('', '_reverse') if self.bidirectional else ('',)
    inputs, mask = jnp.swapaxes(x, 0, 1), mask.T
    y, states, state = inputs, [], iter(state)
    for i in range(self.layers):
      outputs = []
      for name in names:
        direction = _Direction(bool(name), name=f'layer_{i}{name}')
        output, last = direction(y, mask, next(state))
        outputs.append(output)
        states.append(last)
      y = jnp.concatenate(outputs, axis=-1)
    if self.skip:
      y = y + jnp.concatenate([inputs] * len(names), axis=-1)
    return jnp.swapaxes(y, 0, 1), tuple(states)


class _Direction(nn.Module):
  """One layer in one direction of time; arrays lead with time."""

  reverse: bool

  @nn.compact
  def __call__(self, x, mask, state):
    width = state[0].shape[-1]
    # torch's: uniform in +-1 / sqrt(width), whatever the shape.
    bound = width**-0.5

    def init(rng, shape, dtype):
      return jax.random.uniform(rng, shape, dtype, -bound, bound)

    def weight(name, *shape):
      axes = ('channels_in', 'channels_out') if len(shape) == 2 else (None,)
      return ops.weight(self, name, init, shape, axes)

    kernel = weight('input', x.shape[-1], 4 * width)
    # Multiplied at each position: worth forming once, whatever it consists of.
    recurrent = ops.materialize(weight('recurrent', width, 4 * width), x.dtype)
    bias = ops.materialize(weight('input_bias', 4 * width), x.dtype)
    bias += ops.materialize(weight('recurrent_bias', 4 * width), x.dtype)
    z = ops.einsum('tbd,df->tbf', x, kernel) + bias
    if self.reverse:
      # Masked positions now come first: the state stays fresh up to the end of
      # each row.
      z, mask = z[::-1], mask[::-1]
    y, state = recurrence.lstm(z, recurrent, state, mask)
    return y[::-1] if self.reverse else y, state
