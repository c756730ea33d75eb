"""Layers made of layers, streaming ones if all parts are."""

from collections.abc import Callable
from fractions import Fraction
import math

import flax.linen as nn
import jax

from audiolm_jax.streaming import base as streaming_base


class Serial(streaming_base.Steppable):
  """One layer after the other.

  Raises:
    ValueError: on use, if a layer's input is delayed by what is not a whole
      number of its blocks.
  """

  layers: tuple[streaming_base.Layer, ...]

  @property
  def steppable(self) -> bool:
    return all(layer.steppable for layer in self.layers)

  @property
  def min_step(self) -> int | None:
    size, ratio, lags = 1, Fraction(1), False
    for layer in self.layers:
      first = layer.min_step
      # Nothing mirrors a start that comes later.
      if first is None or (lags and first > layer.block_size):
        return None
      size = max(size, math.ceil(first / ratio))
      ratio *= layer.output_ratio
      lags = lags or layer.output_latency > 0
    return -(-size // self.block_size) * self.block_size

  @property
  def block_size(self) -> int:
    size, ratio = 1, Fraction(1)
    for layer in self.layers:
      # `size` inputs give size * ratio inputs of this layer: whole blocks?
      size *= (size * ratio / layer.block_size).denominator
      ratio *= layer.output_ratio
      size *= (size * ratio).denominator
    return size

  @property
  def output_ratio(self) -> Fraction:
    return math.prod(
        (layer.output_ratio for layer in self.layers), start=Fraction(1)
    )

  @property
  def output_latency(self) -> int:
    latency = 0
    for layer in self.layers:
      if latency % layer.block_size:
        raise ValueError(
            f'{type(layer).__name__} takes blocks of {layer.block_size} but its'
            f' input lags by {latency}'
        )
      latency = int(latency * layer.output_ratio) + layer.output_latency
    return latency

  @property
  def receptive_field(self) -> int | None:
    # The earliest position that the first output of a block depends on.
    earliest = 0
    for layer in reversed(self.layers):
      if layer.receptive_field is None:
        return None
      size = layer.block_size
      block = math.floor(earliest / (size * layer.output_ratio))
      earliest = (block + 1) * size - layer.receptive_field
    return self.block_size - earliest

  @nn.nowrap
  def reach(self, start, stop):
    for layer in reversed(self.layers):
      spans = layer.reach(start, stop)
      if spans is None:
        return None
      start, stop = spans
    return start, stop

  @nn.nowrap
  def output_spec(self, spec):
    for layer in self.layers:
      spec = layer.output_spec(spec)
    return spec

  @nn.nowrap
  def initial_state(self, batch, spec):
    states = []
    for layer in self.layers:
      states.append(layer.initial_state(batch, spec))
      spec = layer.output_spec(spec)
    return tuple(states)

  def process(self, x, mask, state, context):
    states = []
    for layer, layer_state in zip(self.layers, state, strict=True):
      x, mask, layer_state = layer.step(x, mask, layer_state, context)
      states.append(layer_state)
    return x, mask, tuple(states)

  def __call__(self, x, mask, context=None):
    for layer in self.layers:
      x, mask = layer(x, mask, context)
    return x, mask


class Residual(streaming_base.Steppable):
  """shortcut(x) + body(x), for parts that keep the rate and the time.

  Attributes:
    body: what is added.
    shortcut: the other branch; None for x itself, as the body then also keeps
      the width.

  Raises:
    ValueError: on use, for parts that change the rate or lag.
  """

  body: streaming_base.Layer
  shortcut: streaming_base.Layer | None = None

  @property
  def _parts(self) -> list[streaming_base.Layer]:
    return [p for p in (self.body, self.shortcut) if p is not None]

  @property
  def steppable(self) -> bool:
    return all(part.steppable for part in self._parts)

  @property
  def min_step(self) -> int | None:
    steps = [part.min_step for part in self._parts]
    return None if None in steps else max(steps)

  @property
  def block_size(self) -> int:
    return math.lcm(*(part.block_size for part in self._parts))

  @property
  def output_latency(self) -> int:
    for part in self._parts:
      if part.output_latency or part.output_ratio != 1:
        raise ValueError('a residual part must not lag nor change the rate')
    return 0

  @property
  def receptive_field(self) -> int | None:
    fields = [part.receptive_field for part in self._parts]
    if None in fields:
      return None
    # A part of smaller blocks waits for the end of the common one.
    return max(
        field + self.block_size - part.block_size
        for part, field in zip(self._parts, fields, strict=True)
    )

  @nn.nowrap
  def reach(self, start, stop):
    spans = [part.reach(start, stop) for part in self._parts]
    if None in spans:
      return None
    firsts, lasts = zip((start, stop), *spans, strict=True)
    return min(firsts), max(lasts)

  @nn.nowrap
  def output_spec(self, spec):
    return self.body.output_spec(spec)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return tuple(part.initial_state(batch, spec) for part in self._parts)

  def process(self, x, mask, state, context):
    y, y_mask, body_state = self.body.step(x, mask, state[0], context)
    if self.shortcut is None:
      return x + y, y_mask, (body_state,)
    x, _, other = self.shortcut.step(x, mask, state[1], context)
    return x + y, y_mask, (body_state, other)

  def __call__(self, x, mask, context=None):
    y, y_mask = self.body(x, mask, context)
    if self.shortcut is not None:
      x, _ = self.shortcut(x, mask, context)
    return x + y, y_mask


class Map(streaming_base.Steppable):
  """A function of each position by itself, without parameters.

  Attributes:
    function: [B, T, ...] -> [B, T, ...], acting on the trailing axes.
  """

  function: Callable

  @nn.nowrap
  def output_spec(self, spec):
    one = jax.ShapeDtypeStruct((1, 1, *spec.shape), spec.dtype)
    out = jax.eval_shape(self.function, one)
    return jax.ShapeDtypeStruct(out.shape[2:], out.dtype)

  def process(self, x, mask, state, context):
    del context
    return self.function(x), mask, state
