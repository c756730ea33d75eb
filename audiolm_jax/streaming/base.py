"""The `Steppable` contract: a causal layer over a sequence or step by step.

What the contract adds to the maths is that it is declared (latency, block size,
receptive field) and tested (`streaming.testing.assert_streaming_contract`).
Layers that look ahead are `Layer`s only: they share masks and `reach`.

The vocabulary is that of google/sequence-layers; the code is our own.
"""

import abc
from collections.abc import Mapping
from fractions import Fraction
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

State = Any  # a pytree whose leaves all lead with the batch axis
Mask = Bool[Array, 'B T']
Context = Mapping[str, Array] | None
# What stands at one position of a sequence: shape (without batch and time) and
# dtype.
PositionSpec = jax.ShapeDtypeStruct


class Layer(nn.Module, abc.ABC):
  """A map of sequences [B, T, ...] with masks, as a whole at least.

  Masks are prefixes of rows. Masked positions of the input may hold anything,
  NaN included; no valid output depends on them. Outputs at masked positions are
  unspecified. A row in a padded batch has the outputs it has alone.
  """

  @property
  def block_size(self) -> int:
    """Input positions that go together, such as a stride."""
    return 1

  @property
  def output_ratio(self) -> Fraction:
    """Output positions for each input position."""
    return Fraction(1)

  @property
  def steppable(self) -> bool:
    """Whether it may be used as a `Steppable`."""
    return False

  @property
  def min_step(self) -> int | None:
    """Input positions that each step must have at least; None: it has no steps.

    More than a block where a causal layer mirrors the start of a sequence: it
    goes step by step in steps of this size, though it is not `steppable`.
    """
    return self.block_size if self.steppable else None

  @nn.nowrap
  def output_spec(self, spec: PositionSpec) -> PositionSpec:
    """What stands at an output position, given that of the input."""
    return spec

  @nn.nowrap
  @abc.abstractmethod
  def reach(self, start: int, stop: int) -> tuple[int, int] | None:
    """Input positions [first, last) that outputs [start, stop) depend on.

    They may lie before the start or past the end of a sequence, where its
    edges come in. None if that is unbounded.
    """

  @abc.abstractmethod
  def __call__(
      self, x: Float[Array, 'B T *D'], mask: Mask, context: Context = None
  ) -> tuple[Array, Mask]:
    """The whole sequence at once: (outputs, their mask)."""


class Steppable(Layer):
  """A causal map of sequences [B, T, ...], with an equal step form.

  Invariant, for outputs and gradients alike:
  `layer(x) == concat(step(x), step(flush))[output_latency:]`, where flush is
  `input_latency` masked positions. Masked positions of x may hold anything, NaN
  included; they count as zeros, and no valid output depends on them.

  Subclasses write `process`, the step on an x that is already zero where
  masked, and override what differs from the defaults here. The properties and
  `initial_state` need no parameters, so they work on an unbound module. A class
  whose options may forbid steps (a look ahead, reflection) says so in
  `steppable`.
  """

  @property
  def block_size(self) -> int:
    """T of `step` must be a multiple of this."""
    return 1

  @property
  def steppable(self) -> bool:
    """Whether `step` may be used."""
    return True

  @property
  def causal(self) -> bool:
    """Whether no output depends on a later position, of its block neither."""
    return self.block_size == 1 and self.output_latency == 0

  @property
  def output_latency(self) -> int:
    """Output positions by which `step` lags behind the whole-sequence form."""
    return 0

  @property
  def input_latency(self) -> int:
    """Masked input positions that flush the last output out of `step`."""
    lag = -(-self.output_latency // self.output_ratio)
    return -(-lag // self.block_size) * self.block_size

  @property
  def receptive_field(self) -> int | None:
    """Input positions that one output may depend on; None if unbounded.

    They end with the last one of the input block during which `step` gives out
    the output.
    """
    return 1

  @nn.nowrap
  def reach(self, start: int, stop: int) -> tuple[int, int] | None:
    if self.receptive_field is None:
      return None

    def end(position):
      """The end of the input block during which `step` gives it out."""
      lagging = (position + self.output_latency) / self.output_ratio
      return (math.floor(lagging / self.block_size) + 1) * self.block_size

    return end(start) - self.receptive_field, end(stop - 1)

  @nn.nowrap
  def initial_state(self, batch: int, spec: PositionSpec) -> State:
    """The state before the first step; every leaf leads with the batch."""
    del batch, spec
    return ()

  @nn.nowrap
  def reset(self, state: State, rows: Bool[Array, 'B'], spec: PositionSpec):
    """`state`, with the chosen rows as before their first step."""
    return pick_rows(rows, self.initial_state(rows.shape[0], spec), state)

  @abc.abstractmethod
  def process(
      self, x: Array, mask: Mask, state: State, context: Context
  ) -> tuple[Array, Mask, State]:
    """`step` on an x that is zero where masked."""

  def step(
      self,
      x: Float[Array, 'B T *D'],
      mask: Mask,
      state: State,
      context: Context = None,
  ) -> tuple[Array, Mask, State]:
    """The next T positions: (outputs, their mask, next state).

    Raises:
      ValueError: if T is not a multiple of `block_size`, or the layer has no
        `min_step`.
    """
    if self.min_step is None:
      raise ValueError(
          f'{type(self).__name__} cannot step with these options: it needs more'
          ' of the sequence than its past. Call it on whole sequences.'
      )
    if x.shape[1] % self.block_size:
      raise ValueError(
          f'{type(self).__name__}.step takes multiples of {self.block_size}'
          f' positions, got {x.shape[1]}'
      )
    return self.process(zero_masked(x, mask), mask, state, context)

  def __call__(
      self, x: Float[Array, 'B T *D'], mask: Mask, context: Context = None
  ) -> tuple[Array, Mask]:
    """The whole sequence at once: (outputs, their mask).

    T is padded with masked positions to a multiple of `block_size`.
    """
    missing = -x.shape[1] % self.block_size + self.input_latency
    x = pad_time(x, 0, missing)
    mask = pad_time(mask, 0, missing)
    state = self.initial_state(x.shape[0], position_spec(x))
    y, y_mask, _ = self.step(x, mask, state, context)
    extra = int(self.input_latency * self.output_ratio) - self.output_latency
    end = y.shape[1] - extra
    start = self.output_latency
    return y[:, start:end], y_mask[:, start:end]


def position_spec(x: Array) -> PositionSpec:
  """The spec of one position of x [B, T, ...]."""
  return jax.ShapeDtypeStruct(x.shape[2:], x.dtype)


def zero_masked(x: Float[Array, 'B T *D'], mask: Mask) -> Array:
  """x, zero where masked. A select: neither NaN nor its gradient gets past."""
  mask = mask.reshape(*mask.shape, *([1] * (x.ndim - 2)))
  return jnp.where(mask, x, jnp.zeros((), x.dtype))


def pad_time(x: Array, before: int, after: int) -> Array:
  """x [B, T, ...] with zeros (False) at its ends."""
  if not before and not after:
    return x
  return jnp.pad(x, ((0, 0), (before, after), *([(0, 0)] * (x.ndim - 2))))


def length_mask(lengths: Array, size: int) -> Mask:
  """[B, size], True before each row's length."""
  return jnp.arange(size) < lengths[:, None]


def pick_rows(rows: Bool[Array, 'B'], new: State, old: State) -> State:
  """`old`, with the chosen rows of `new`.

  Args:
    rows: which.
    new: every leaf leads with the rows, or with all of them several times.
    old: of the same shapes.
  """

  def pick(new, old):
    chosen = jnp.tile(rows, old.shape[0] // max(rows.shape[0], 1))
    return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  return jax.tree.map(pick, new, old)
