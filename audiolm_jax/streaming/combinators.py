"""Streaming layers made of streaming layers."""

from collections.abc import Callable
from fractions import Fraction
import math

import flax.linen as nn
import jax

from audiolm_jax.streaming import base


class Serial(base.Steppable):
  """One layer after the other.

  Raises:
    ValueError: on use, if a layer's input is delayed by what is not a whole
      number of its blocks.
  """

  layers: tuple[base.Steppable, ...]

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


class Residual(base.Steppable):
  """x + body(x), for a body that keeps rate, width and time.

  Raises:
    ValueError: on use, for a body that changes the rate or lags.
  """

  body: base.Steppable

  @property
  def block_size(self) -> int:
    return self.body.block_size

  @property
  def output_latency(self) -> int:
    if self.body.output_latency or self.body.output_ratio != 1:
      raise ValueError('a residual body must not lag nor change the rate')
    return 0

  @property
  def receptive_field(self) -> int | None:
    return self.body.receptive_field

  @nn.nowrap
  def initial_state(self, batch, spec):
    return self.body.initial_state(batch, spec)

  def process(self, x, mask, state, context):
    y, mask, state = self.body.step(x, mask, state, context)
    return x + y, mask, state


class Map(base.Steppable):
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
