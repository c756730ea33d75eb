"""Changes of rate without learned filters."""

from fractions import Fraction
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers


class Upsample(streaming_base.Steppable):
  """`factor` outputs for each input.

  Attributes:
    factor: outputs for each input.
    mode: `repeat`, or `linear` interpolation between the centres of the inputs,
      held at both ends (torch's interpolate without aligned corners). Linear
      lags by half an input.
  """

  factor: int
  mode: Literal['repeat', 'linear'] = 'repeat'

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.factor)

  @property
  def output_latency(self) -> int:
    return self.factor // 2 if self.mode == 'linear' else 0

  @property
  def receptive_field(self) -> int:
    return 2 if self.output_latency else 1

  @nn.nowrap
  def initial_state(self, batch, spec):
    if not self.output_latency:
      return ()
    return {
        'last': jnp.zeros((batch, 1, *spec.shape), spec.dtype),
        'started': jnp.zeros(batch, bool),
        'mask': jnp.zeros((batch, self.output_latency), bool),
    }

  def process(self, x, mask, state, context):
    del context
    if not self.output_latency:
      y = jnp.repeat(x, self.factor, axis=1)
      return y, jnp.repeat(mask, self.factor, axis=1), state
    extra = (1,) * (x.ndim - 2)

    def where(condition, *values):
      return jnp.where(condition.reshape(-1, 1, *extra), *values)

    # Past the end of a row its last value is held, before its start the first.
    count = jnp.sum(mask, axis=1)
    index = jnp.maximum(count - 1, 0).reshape(-1, 1, *extra)
    last = jnp.take_along_axis(x, index, axis=1)
    last = where(count > 0, last, state['last'])
    before = where(state['started'], state['last'], x[:, :1])
    x = jnp.where(mask.reshape(*mask.shape, *extra), x, last)
    left = jnp.concatenate([before, x[:, :-1]], axis=1)
    # Outputs of a step lie between its input and the one before.
    shift = 0.5 + self.factor / 2 - self.output_latency
    weight = (np.arange(self.factor) + shift) / self.factor
    weight = jnp.asarray(weight, x.dtype).reshape(-1, *extra)
    y = left[:, :, None] * (1 - weight) + x[:, :, None] * weight
    y = y.reshape(x.shape[0], -1, *x.shape[2:])
    mask, rest = _delayed(jnp.repeat(mask, self.factor, axis=1), state['mask'])
    started = state['started'] | (count > 0)
    return y, mask, {'last': last, 'started': started, 'mask': rest}


class AveragePool(streaming_base.Steppable):
  """The mean of every `factor` inputs; of those that exist at the end of a row.

  Attributes:
    factor: inputs for each output.
  """

  factor: int

  @property
  def block_size(self) -> int:
    return self.factor

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, self.factor)

  @property
  def receptive_field(self) -> int:
    return self.factor

  def process(self, x, mask, state, context):
    del context
    blocks = x.reshape(x.shape[0], -1, self.factor, *x.shape[2:])
    count = mask.reshape(mask.shape[0], -1, self.factor).sum(axis=2)
    count = jnp.maximum(count, 1).reshape(*count.shape, *[1] * (x.ndim - 2))
    y = blocks.sum(axis=2) / count.astype(x.dtype)
    return y, streaming_layers.block_mask(mask, self.factor), state


class Resample(streaming_base.Steppable):
  """Band-limited resampling by up / down with a windowed sinc, without phase.

  Output n is the input at time n down / up; a row of L inputs has
  ceil(L up / down) outputs, as scipy.signal.resample_poly gives them with its
  defaults. Blocks are whole periods of the two rates, so the phase is exact
  however long a stream runs. Each channel is resampled by itself.

  Attributes:
    up: factor of the rate.
    down: divisor of the rate.
    half_width: zero crossings of the sinc on each side.
    beta: of the Kaiser window; 5 keeps aliases below about -50 dB.
  """

  up: int
  down: int
  half_width: int = 10
  beta: float = 5.0

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(self.up, self.down)

  @property
  def block_size(self) -> int:
    return self.output_ratio.denominator

  @property
  def output_latency(self) -> int:
    # The last output of a step sees no further than its own block of inputs.
    return -(-(self._half + 1) // self.block_size) - 1

  @property
  def receptive_field(self) -> int:
    return self._past + self.block_size

  @property
  def _half(self) -> int:
    """Taps on each side at the common rate; those after them are zero."""
    most = max(self.output_ratio.as_integer_ratio())
    return self.half_width * most - 1 if most > 1 else 0

  @property
  def _past(self) -> int:
    """Inputs before its block that a step needs."""
    up, down = self.output_ratio.as_integer_ratio()
    return max((self.output_latency * down + self._half) // up, 0)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return {
        'past': jnp.zeros((batch, self._past, *spec.shape), spec.dtype),
        'mask': jnp.zeros((batch, self.output_latency), bool),
    }

  def process(self, x, mask, state, context):
    del context
    up, down = self.output_ratio.as_integer_ratio()
    batch, length = x.shape[:2]
    kernel = _kernel(
        up, down, self._half, self.beta, self._past, self.output_latency
    )
    x = jnp.concatenate([state['past'], x], axis=1)
    past = x[:, length:]
    # Channels join the batch; the outputs of a block are features.
    rows = jnp.moveaxis(x.reshape(batch, x.shape[1], -1), 2, 1)
    y = jax.lax.conv_general_dilated(
        rows.reshape(-1, x.shape[1], 1),
        jnp.asarray(kernel, x.dtype)[:, None],
        window_strides=(down,),
        padding='VALID',
        dimension_numbers=('NWC', 'WIO', 'NWC'),
        precision=jax.lax.Precision.HIGHEST,
    )
    y = y.reshape(batch, -1, length // down * up)
    y = jnp.moveaxis(y, 1, 2).reshape(batch, -1, *x.shape[2:])
    # Output n stands at input n down / up, rounded down.
    blocks = mask.reshape(batch, -1, down)[:, :, np.arange(up) * down // up]
    mask, rest = _delayed(blocks.reshape(batch, -1), state['mask'])
    return y, mask, {'past': past, 'mask': rest}


@functools.cache
def _kernel(
    up: int, down: int, half: int, beta: float, past: int, latency: int
) -> Float[np.ndarray, 'inputs up']:
  """What each input of a window adds to each of the outputs of its block.

  The filter is that of scipy.signal.firwin with a Kaiser window, times `up`.
  """
  most = max(up, down)
  size = half + 1
  times = np.arange(-size, size + 1)
  taps = np.sinc(times / most) * np.kaiser(2 * size + 1, beta)
  taps *= up / taps.sum()
  inputs = (np.arange(past + down) - past)[:, None] * up
  outputs = (np.arange(up) - latency)[None] * down
  at = outputs - inputs
  return np.where(np.abs(at) <= half, taps[np.clip(at + size, 0, 2 * size)], 0)


def _delayed(mask, state):
  """(mask after what is held back, what is held back now)."""
  joined = jnp.concatenate([state, mask], axis=1)
  return joined[:, : mask.shape[1]], joined[:, mask.shape[1] :]
