"""Layers side by side, and one layer many times."""

from fractions import Fraction
import functools
import math
import operator
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax.streaming import base as streaming_base


class Parallel(streaming_base.Steppable):
  """Layers that read the same input; their outputs are added or joined.

  Attributes:
    branches: of one rate, and of one latency if they are to step.
    combine: the sum, or the outputs side by side on the last axis.

  Raises:
    ValueError: on use, for branches whose rates or latencies differ.
  """

  branches: tuple[streaming_base.Layer, ...]
  combine: Literal['sum', 'concat'] = 'sum'

  @property
  def steppable(self) -> bool:
    return all(branch.steppable for branch in self.branches)

  @property
  def block_size(self) -> int:
    return math.lcm(*(branch.block_size for branch in self.branches))

  @property
  def output_ratio(self) -> Fraction:
    return self._common('output_ratio')

  @property
  def output_latency(self) -> int:
    return self._common('output_latency')

  @nn.nowrap
  def _common(self, name):
    values = [getattr(branch, name) for branch in self.branches]
    if len(set(values)) > 1:
      described = ', '.join(
          f'{type(branch).__name__} {value}'
          for branch, value in zip(self.branches, values, strict=True)
      )
      raise ValueError(f'parallel branches differ in {name}: {described}')
    return values[0]

  @property
  def receptive_field(self) -> int | None:
    fields = [branch.receptive_field for branch in self.branches]
    if None in fields:
      return None
    # What a small block gives out first in a large one must wait for its end.
    return max(
        field + self.block_size - branch.block_size
        for field, branch in zip(fields, self.branches, strict=True)
    )

  @nn.nowrap
  def reach(self, start, stop):
    spans = [branch.reach(start, stop) for branch in self.branches]
    if None in spans:
      return None
    firsts, lasts = zip(*spans, strict=True)
    return min(firsts), max(lasts)

  @nn.nowrap
  def output_spec(self, spec):
    specs = [branch.output_spec(spec) for branch in self.branches]
    if self.combine == 'sum':
      return specs[0]
    width = sum(each.shape[-1] for each in specs)
    return jax.ShapeDtypeStruct((*specs[0].shape[:-1], width), specs[0].dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    return tuple(branch.initial_state(batch, spec) for branch in self.branches)

  def process(self, x, mask, state, context):
    outputs, masks, states = zip(
        *(
            branch.step(x, mask, branch_state, context)
            for branch, branch_state in zip(self.branches, state, strict=True)
        ),
        strict=True,
    )
    return *self._combined(outputs, masks), states

  def __call__(self, x, mask, context=None):
    self._common('output_ratio')
    outputs, masks = zip(
        *(branch(x, mask, context) for branch in self.branches), strict=True
    )
    return self._combined(outputs, masks)

  @nn.nowrap
  def _combined(self, outputs, masks):
    mask = functools.reduce(operator.and_, masks)
    if self.combine == 'sum':
      return functools.reduce(operator.add, outputs), mask
    return jnp.concatenate(outputs, axis=-1), mask


class Repeat(streaming_base.Steppable):
  """The same layer `count` times in a row, each with parameters of its own.

  Compiled once: parameters and states of the layers are stacked, parameters on
  a first axis 'layers', states behind the batch axis.

  Attributes:
    body: keeps the rate and what stands at a position.
    count: how often.
    remat: what the backward pass recomputes: nothing, everything, or everything
      but the results of matrix products.

  Raises:
    ValueError: on use, for a body that changes the rate or the width, or whose
      lag is not a whole number of its blocks.
  """

  body: streaming_base.Layer
  count: int
  remat: Literal['none', 'full', 'dots'] = 'none'

  @property
  def steppable(self) -> bool:
    return self.body.steppable

  @property
  def block_size(self) -> int:
    return self.body.block_size

  @property
  def output_ratio(self) -> Fraction:
    if self.body.output_ratio != 1:
      raise ValueError(
          f'{type(self.body).__name__} changes the rate: it cannot be repeated'
      )
    return Fraction(1)

  @property
  def output_latency(self) -> int:
    latency = self.body.output_latency
    if latency % self.block_size and self.count > 1:
      raise ValueError(
          f'{type(self.body).__name__} takes blocks of {self.block_size} but'
          f' its own output lags by {latency}'
      )
    return latency * self.count

  @property
  def receptive_field(self) -> int | None:
    size, field = self.block_size, self.body.receptive_field
    if field is None:
      return None
    earliest = 0
    for _ in range(self.count):
      earliest = (earliest // size + 1) * size - field
    return size - earliest

  @nn.nowrap
  def reach(self, start, stop):
    spans = start, stop
    for _ in range(self.count):
      spans = self.body.reach(*spans)
      if spans is None:
        return None
    return spans

  @nn.nowrap
  def output_spec(self, spec):
    out = self.body.output_spec(spec)
    if (out.shape, out.dtype) != (spec.shape, spec.dtype):
      raise ValueError(
          f'{type(self.body).__name__} turns {spec.dtype}{list(spec.shape)}'
          f' into {out.dtype}{list(out.shape)}: it cannot be repeated'
      )
    return spec

  @nn.nowrap
  def initial_state(self, batch, spec):
    state = self.body.initial_state(batch, spec)
    return jax.tree.map(lambda s: jnp.stack([s] * self.count, axis=1), state)

  def process(self, x, mask, state, context):
    def step(module, carry, state):
      y, y_mask, state = module.body.step(*carry, state, context)
      return (y, y_mask), state

    (y, y_mask), state = self._scan(step, x, mask, state)
    return y, y_mask, state

  def __call__(self, x, mask, context=None):
    self.output_spec(streaming_base.position_spec(x))

    def whole(module, carry, _):
      return module.body(*carry, context), None

    return self._scan(whole, x, mask, None)[0]

  def _scan(self, function, x, mask, state):
    if self.remat != 'none':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      policy = policy if self.remat == 'dots' else None
      function = nn.remat(function, policy=policy, prevent_cse=False)
    layers = nn.scan(
        function,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=1,
        out_axes=1,
        length=self.count,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return layers(self, (x, mask), state)
