"""Finite scalar quantisation (Mentzer et al. 2023, 2309.15505)."""

import dataclasses
import functools
import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import vq


@dataclasses.dataclass(frozen=True)
class Fsq(bottlenecks_base.Bottleneck):
  """Rounds each of a few bounded dimensions; no codebook, no loss.

  A dimension with L values takes those from -floor(L / 2) upwards, divided by
  floor(L / 2). A code is the number whose digits are the values' indices, the
  first dimension's the lowest. Slots go by level, then by group.

  X-Codec-2's is grid (4,) * 8 with `bounds` 2; S3's (CosyVoice 2) is grid
  (3,) * 8 with `stretch` -1e-3.

  Attributes:
    grid: values of each dimension of a code.
    groups: codes side by side, each of dimensions of its own.
    codebooks: levels; each cuts a step of the one before into L equal ones.
    project: linear maps with bias from and to the encoder's width, which
      otherwise must be groups * len(grid).
    stretch: how far tanh reaches beyond the outermost values, relative to the
      range; it keeps these from saturating.
    bounds: how often the squeezing is applied; twice, two values of a dimension
      would not both be reached.
    dropout: share of rows that use only their first n levels, n uniform.
  """

  grid: Annotated[tuple[int, ...], config.Range(min=2)] = (8, 5, 5, 5)
  groups: config.Positive = 1
  codebooks: config.Positive = 1
  project: bool = True
  stretch: Annotated[float, config.Range(min=-0.1, max=0.1)] = 1e-3
  bounds: Annotated[int, config.Range(min=1, max=2)] = 1
  dropout: config.Share = 0.0

  def __post_init__(self):
    if self.bounds == 2 and 2 in self.grid:
      raise config.ConfigError(
          f'bounds = 2: grid = {self.grid} has a value that cannot be reached'
      )
    if not self.grid or math.prod(self.grid) > 2**31 - 1:
      raise config.ConfigError(
          f'grid = {self.grid}: expected 1 to 2^31 - 1 codes'
      )

  @property
  def loss_weights(self):
    return {}

  @property
  def quantiser(self):
    return 'FSQ'

  def slots(self):
    return tuple(
        tokenizers_base.Slot(codebook=k, vocabulary=math.prod(self.grid))
        for k in range(self.codebooks * self.groups)
    )

  def prefixes(self):
    count = self.codebooks * self.groups
    return tuple(range(self.groups, count + 1, self.groups))

  def init(self, rng, dimension):
    width = self.groups * len(self.grid)
    return {
        'params': projections.around(rng, dimension, width, self.project),
        'state': {},
    }

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del rng  # Deterministic.
    params = nn.meta.unbox(variables['params'])
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    if self.project:
      x = projections.apply(params['in'], x)
    x = x.reshape(*mask.shape, self.groups, len(self.grid))
    for _ in range(self.bounds):
      x = bound(x, self.grid, self.stretch)
    bounded = x / self._half
    residual, total = jax.lax.stop_gradient(bounded), jnp.zeros_like(bounded)
    codes, margins, first = [], [], None
    for k in range(self.codebooks):
      digits, closeness = nearest(self._places(residual, k), self.grid)
      chosen = self._values(digits, k)
      residual = residual - chosen
      if levels is not None:
        chosen = chosen * (k < levels)[:, None, None, None]
      first = chosen if k == 0 else first
      total = total + chosen
      codes.append(encode_digits(digits, self.grid))
      margins.append(closeness)
    codes = jnp.concatenate(codes, axis=-1)
    margins = jnp.concatenate(margins, axis=-1)

    def through(values):
      return bounded + jax.lax.stop_gradient(values - bounded)

    latents = self._output(params, through(total))
    semantic = self._output(params, through(first))
    return bottlenecks_base.Quantised(
        latents=jnp.where(mask[..., None], latents, 0.0),
        losses={},
        codes=jnp.where(mask[..., None], codes, 0),
        margins=jnp.where(mask[..., None], margins, 1.0),
        semantic=jnp.where(mask[..., None], semantic, 0.0),
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    levels = tokens.shape[-1] // self.groups
    codes = tokens.reshape(*tokens.shape[:-1], levels, self.groups)
    total = sum(
        self._values(decode_digits(codes[..., k, :], self.grid), k)
        for k in range(levels)
    )
    return self._output(nn.meta.unbox(variables['params']), total)

  def levels(self, rng, rows):
    if self.codebooks == 1:
      return None
    return vq.dropout_levels(rng, rows, self.codebooks, self.dropout)

  def code_vectors(self, variables):
    """[K, V, len(grid)], one for each slot: those of its level."""
    del variables
    codes = jnp.arange(math.prod(self.grid))
    digits = decode_digits(codes, self.grid)
    return jnp.stack(
        [
            self._values(digits, k)
            for k in range(self.codebooks)
            for _ in range(self.groups)
        ]
    )

  @functools.cached_property
  def _half(self):
    return np.array(self.grid, np.float32) // 2

  def _values(self, digits, level):
    """What a level's whole numbers stand for."""
    return (digits + self._offset(level)) / self._steps(level)

  def _places(self, values, level):
    """The inverse of `_values`, between whole numbers."""
    return values * self._steps(level) - self._offset(level)

  def _steps(self, level):
    """Of a level in a unit: each cuts a step of the one before into L."""
    return self._half * np.array(self.grid, np.float32) ** level

  def _offset(self, level):
    """What the levels leave over is symmetric, an even number of values not."""
    even = np.array(self.grid) % 2 == 0
    return np.where(even & (level > 0), 0.5, 0.0).astype(np.float32)

  def _output(self, params, values):
    width = self.groups * len(self.grid)
    x = values.reshape(*values.shape[:2], width)  # -1 fails without frames.
    return projections.apply(params['out'], x) if self.project else x


def bound(
    x: Float[Array, '*n L'], grid: tuple[int, ...], stretch: float
) -> Float[Array, '*n L']:
  """x squeezed so that rounding gives each dimension its values (section 3.1).

  Even numbers of values have no middle: they are shifted by half a step.
  """
  count = np.array(grid, np.float32)
  half = (count - 1) * (1 + stretch) / 2
  offset = np.where(count % 2 == 0, 0.5, 0.0)
  # Without stretch the two values of a dimension lie where tanh saturates.
  shift = np.arctanh(np.minimum(offset / half, 0.9999))
  return jnp.tanh(x + shift) * half - offset


def nearest(
    x: Float[Array, '*n L'], grid: tuple[int, ...]
) -> tuple[Float[Array, '*n L'], Float[Array, '*n']]:
  """Values of the grid, as whole numbers, and the least margin of a dimension."""
  low = -(np.array(grid, np.float32) // 2)
  high = low + np.array(grid, np.float32) - 1
  digits = jnp.clip(jnp.round(x), low, high)
  side = jnp.where(x >= digits, 1.0, -1.0)
  # At the ends of the grid the second best lies on the inner side.
  side = jnp.where(digits + side > high, -1.0, side)
  side = jnp.where(digits + side < low, 1.0, side)
  margins = vq.margin(jnp.abs(x - digits), jnp.abs(x - digits - side))
  return digits, margins.min(axis=-1)


def encode_digits(
    digits: Float[Array, '*n L'], grid: tuple[int, ...]
) -> Int[Array, '*n']:
  """The code of a point of the grid, given as whole numbers."""
  basis = np.cumprod([1, *grid[:-1]]).astype(np.int32)
  indices = digits.astype(jnp.int32) + np.array(grid, np.int32) // 2
  return jnp.sum(indices * basis, axis=-1, dtype=jnp.int32)


def decode_digits(
    codes: Int[Array, '*n'], grid: tuple[int, ...]
) -> Float[Array, '*n L']:
  """The inverse of `encode_digits`."""
  basis = np.cumprod([1, *grid[:-1]]).astype(np.int32)
  indices = codes[..., None] // basis % np.array(grid, np.int32)
  return (indices - np.array(grid, np.int32) // 2).astype(jnp.float32)
