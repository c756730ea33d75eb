"""Rotary positions (RoFormer, 2104.09864), exact in streams of any length.

Angles are computed from frequencies that are host constants, so that scaled
ones (YaRN, 2309.00071) cost nothing.
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config

# Positions for which a program may hold a constant.
_CONSTANT = 8192

Rotation = tuple[Float[Array, 'B N 1 h'], Float[Array, 'B N 1 h']]


@dataclasses.dataclass(frozen=True)
class Yarn:
  """Frequencies for sequences longer than those trained on (2309.00071).

  Dimensions that turn more than `beta_fast` times within the original length
  keep their frequency, those that turn less than `beta_slow` times have it
  divided by `factor`, and those between are blended.

  Attributes:
    factor: by how much sequences are longer.
    original_length: positions before they were lengthened.
    beta_fast: turns.
    beta_slow: turns.
    truncate: whether the blend begins and ends at whole dimensions.
    attention_factor: of queries and keys; None for .1 ln(factor) + 1, the
      square root of the paper's eq. 22.
  """

  factor: Annotated[float, config.Range(min=1)]
  original_length: config.Positive
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  truncate: bool = True
  attention_factor: float | None = None

  @property
  def scale(self) -> float:
    """What cosines and sines are multiplied by."""
    if self.attention_factor is not None:
      return self.attention_factor
    return 0.1 * math.log(self.factor) + 1.0

  def blend(
      self, frequencies: Float[np.ndarray, 'h'], theta: float
  ) -> Float[np.ndarray, 'h']:
    """The frequencies after scaling."""
    count = len(frequencies)

    def dimension(turns):
      """The one that turns so often within the original length."""
      ratio = self.original_length / (2 * math.pi * turns)
      return count * math.log(ratio) / math.log(theta)

    low, high = dimension(self.beta_fast), dimension(self.beta_slow)
    if self.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * count - 1)
    # A step where both ends of the ramp are one.
    ramp = (np.arange(count) - low) / max(high - low, 1e-3)
    ramp = np.clip(ramp, 0, 1)
    return frequencies * (1 - ramp + ramp / self.factor)


@dataclasses.dataclass(frozen=True)
class Llama3:
  """Frequencies for longer sequences as Llama 3.1 has them.

  What turns less than `low` times within the original length has its frequency
  divided by `factor`, what turns more than `high` times keeps it, and between
  them the blend is linear in the number of turns.

  Attributes:
    factor: by how much sequences are longer.
    original_length: positions before they were lengthened.
    low: turns.
    high: turns.
  """

  factor: Annotated[float, config.Range(min=1)]
  original_length: config.Positive
  low: float = 1.0
  high: float = 4.0

  def blend(
      self, frequencies: Float[np.ndarray, 'h']
  ) -> Float[np.ndarray, 'h']:
    """The frequencies after scaling."""
    turns = self.original_length * frequencies / (2 * math.pi)
    kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
    return frequencies * (kept + (1 - kept) / self.factor)


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotates queries and keys by angles proportional to their positions.

  Attributes:
    theta: base of the frequencies.
    yarn: how they are scaled to longer sequences, if they are.
    fraction: of a head's width that is rotated; the rest (its end) is not.
    llama3: another way to scale them.
  """

  theta: Annotated[float, config.Range(min=1)] = 10_000.0
  yarn: Yarn | None = None
  fraction: config.Share = 1.0
  llama3: Llama3 | None = None

  def rotate(
      self,
      x: Float[Array, 'B N H D'],
      positions: Int[Array, 'B N'] | Int[np.ndarray, 'B N'],
  ) -> Float[Array, 'B N H D']:
    """Queries or keys at their positions, rotated; raises as `rotation`."""
    return rotate(x, self.rotation(positions, x.shape[-1]))

  def rotation(
      self,
      positions: Int[Array, 'B N'] | Int[np.ndarray, 'B N'],
      width: int,
  ) -> Rotation:
    """Cosines and sines for `rotate`, for heads of `width`; see `angles`.

    Raises:
      ValueError: if an odd number of features is to be rotated, or frequencies
        are to be scaled in two ways.
    """
    if self.yarn and self.llama3:
      raise ValueError('rope: give yarn or llama3, not both')
    rotated = frequencies(round(width * self.fraction), self.theta)
    if self.llama3 is not None:
      return angles(positions, self.llama3.blend(rotated))
    if self.yarn is None:
      return angles(positions, rotated)
    cos, sin = angles(positions, self.yarn.blend(rotated, self.theta))
    return cos * self.yarn.scale, sin * self.yarn.scale


@dataclasses.dataclass(frozen=True)
class HeadRope:
  """Rotates each head by its number, the same at all positions.

  X-Codec-2's published weights were trained with it. Where each query head has
  a key head of its own, both turn alike, and products are as without.

  Attributes:
    theta: base of the frequencies.
  """

  theta: Annotated[float, config.Range(min=1)] = 10_000.0

  def rotate(
      self,
      x: Float[Array, 'B N H D'],
      positions: Int[Array, 'B N'] | Int[np.ndarray, 'B N'],
  ) -> Float[Array, 'B N H D']:
    """Queries or keys, rotated."""
    del positions
    heads = np.arange(x.shape[2], dtype=np.int32)[None]
    cos, sin = Rope(self.theta).rotation(heads, x.shape[3])
    return rotate(x, (jnp.moveaxis(cos, 1, 2), jnp.moveaxis(sin, 1, 2)))


def frequencies(features: int, theta: float) -> Float[np.ndarray, 'h']:
  """Radians a position of each rotated pair (eq. 15).

  Raises:
    ValueError: if `features` is odd.
  """
  if features % 2:
    raise ValueError(f'rotary positions need an even head width: {features}')
  return theta ** (-2.0 * np.arange(features // 2) / features)


def angles(
    positions: Int[Array, 'B N'] | Int[np.ndarray, 'B N'],
    radians: Float[np.ndarray, 'h'],
) -> Rotation:
  """Cosines and sines of position * frequency, fp32.

  The product of a position and a frequency in fp32 is off by a radian after
  some days of 25 Hz frames. Here the angle is a sum over the bits of the
  position, each reduced by whole turns in double precision.

  Args:
    positions: on the host where they are known: the result is a constant then,
      if it is small. Each layer would else compute it, and on CPUs again for
      every head, which costs as much as half a projection.
    radians: of each pair.
  """
  if isinstance(positions, np.ndarray) and positions.size <= _CONSTANT:
    total = (positions[..., None] * radians)[:, :, None]
    return jnp.asarray(np.cos(total), jnp.float32), jnp.asarray(
        np.sin(total), jnp.float32
    )
  turns = np.ldexp(radians, np.arange(31)[:, None]) % (2 * np.pi)
  bits = (positions[..., None] >> jnp.arange(31)) & 1
  total = jnp.einsum(
      'bnk,kh->bnh',
      bits.astype(jnp.float32),
      turns.astype(np.float32),
      precision=jax.lax.Precision.HIGHEST,
  )[:, :, None]
  return jnp.cos(total), jnp.sin(total)


def rotate(
    x: Float[Array, 'B N H D'], rotation: Rotation
) -> Float[Array, 'B N H D']:
  """Rotates pairs (x[i], x[i + h]) of the first 2 h features."""
  cos, sin = rotation
  half = cos.shape[-1]
  y = x.astype(jnp.float32)
  left, right, rest = jnp.split(y, [half, 2 * half], axis=-1)
  rotated = [left * cos - right * sin, right * cos + left * sin, rest]
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
