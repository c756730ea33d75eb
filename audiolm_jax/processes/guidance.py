"""Guidance: the difference that a condition makes, enlarged (2207.12598).

What is measured of a prediction (its deviation, its length) is of a row's valid
frames together: neither other rows nor padding move it.
"""

import abc
from collections.abc import Callable, Sequence
import dataclasses
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from audiolm_jax import config
from audiolm_jax.processes import gaussian


class Pair(NamedTuple):
  """Two predictions of one noisy latent.

  Attributes:
    process: that z comes from.
    target: what is predicted.
    z: at time t.
    t: of the rows.
    given: predicted with the condition.
    null: predicted without.
    mask: valid frames.
  """

  process: gaussian.Gaussian
  target: gaussian.Target
  z: Float[Array, 'B N D']
  t: Float[Array, 'B']
  given: Float[Array, 'B N D']
  null: Float[Array, 'B N D']
  mask: Bool[Array, 'B N']


class Guidance(abc.ABC):
  """A kind of guidance; to add one, give this and a line in `GUIDANCE`."""

  @abc.abstractmethod
  def combine(self, pair: Pair) -> Float[Array, 'B N D']:
    """The prediction of the same target that both make."""


@dataclasses.dataclass(frozen=True)
class Plain(Guidance):
  """null + scale (given - null).

  Attributes:
    scale: 1 for the conditional prediction itself. F5-TTS, CosyVoice and
      MaskGCT call scale - 1 the guidance.
  """

  scale: config.NonNegative = 3.0

  def combine(self, pair):
    return mixed(pair.given, pair.null, self.scale)


@dataclasses.dataclass(frozen=True)
class Rescaled(Guidance):
  """Plain, with some of the conditional's deviation (2305.08891, eqs. 15, 16).

  Attributes:
    scale: as `Plain`'s.
    share: 0 for plain guidance, 1 for the deviation that the conditional
      prediction has.
  """

  scale: config.NonNegative = 3.0
  share: config.Share = 0.7

  def combine(self, pair):
    plain = mixed(pair.given, pair.null, self.scale)
    wanted, found = (_deviation(y, pair.mask) for y in (pair.given, plain))
    ratio = jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1), 1)
    return plain * (self.share * ratio + 1 - self.share)


@dataclasses.dataclass(frozen=True)
class Projected(Guidance):
  """The difference in data without its part along data (APG, 2410.02416).

  Of data as the two predictions see it, x and x_0: x + (scale - 1) of the
  difference x - x_0, first bounded, then without most of its part along x, which
  is what saturates (algorithm 1). The momentum of that paper is not here:
  predictions know no step before.

  Attributes:
    scale: as `Plain`'s.
    along: which share of the part along x is kept; eta there.
    most: root mean square of the difference, over frames and dimensions; a larger
      one is scaled to it. r there is this times the root of how many numbers a
      row has. None for no bound.
  """

  scale: config.NonNegative = 3.0
  along: config.Share = 0.0
  most: Annotated[float, config.Range(min=1e-6)] | None = None

  def combine(self, pair):
    process, kind, z = pair.process, pair.target, pair.z
    # Data itself, where nothing is left to guide, has no noise to divide by.
    _, b = process.scales(pair.t)
    t = jnp.where(b > 0, pair.t, 0.5)
    x, null = (
        process.estimate(kind, y, z, t).x for y in (pair.given, pair.null)
    )
    change = x - null
    if self.most is not None:
      size = jnp.sqrt(_mean(change**2, pair.mask))
      change *= self.most / jnp.maximum(size, self.most)
    norm = _mean(x**2, pair.mask)
    part = _mean(change * x, pair.mask) / jnp.where(norm > 0, norm, 1)
    change -= (1 - self.along) * part * x
    x += (self.scale - 1) * change
    moved = process.convert('x', kind, x, z, t)
    return jnp.where((b > 0)[:, None, None], moved, pair.given)


@dataclasses.dataclass(frozen=True)
class Interval(Guidance):
  """Another, at some of the times only (2404.07724); both are computed at all.

  Attributes:
    base: which, from `first` to `last`; elsewhere the condition's prediction.
    first: the time nearest to data.
    last: the time nearest to noise.
  """

  base: Annotated[Any, config.Kind(lambda: GUIDANCE)] = Plain()
  first: config.Share = 0.2
  last: config.Share = 0.8

  def __post_init__(self):
    if self.first > self.last:
      raise config.ConfigError(
          f'first = {self.first} > last = {self.last}: no time is between'
      )

  def combine(self, pair):
    within = (self.first <= pair.t) & (pair.t <= self.last)
    guided = self.base.combine(pair)
    return jnp.where(within[:, None, None], guided, pair.given)


GUIDANCE = {
    'interval': Interval,
    'plain': Plain,
    'projected': Projected,
    'rescaled': Rescaled,
}


def guide(
    guidance: Guidance,
    conditional: gaussian.Denoiser,
    unconditional: gaussian.Denoiser,
    mask: Bool[Array, 'B N'],
) -> gaussian.Denoiser:
  """A denoiser whose predictions are guided.

  Args:
    guidance: how.
    conditional: with the condition.
    unconditional: without it, of the same process and target.
    mask: valid frames.
  """
  process, target = conditional.process, conditional.target

  def predict(z, t):
    pair = conditional.predict(z, t), unconditional.predict(z, t)
    return guidance.combine(Pair(process, target, z, t, *pair, mask))

  return gaussian.Denoiser(process, target, predict)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """null + the sum of weight (that with some conditions - null).

  Of several conditions, each may count for more by itself (JASCO, 2406.10970). Of
  one part with all of them, `Plain`.

  Attributes:
    parts: of each, its weight and the names of its conditions. The network is
      asked for each, and for null.
  """

  parts: tuple[tuple[float, tuple[str, ...]], ...]

  def __post_init__(self):
    if not self.parts or not all(names for _, names in self.parts):
      raise config.ConfigError(
          f'parts = {self.parts}: expected a weight and one or more names of'
          ' conditions, at least once'
      )


def mix(
    mixture: Mixture,
    conditional: Sequence[gaussian.Denoiser],
    unconditional: gaussian.Denoiser,
) -> gaussian.Denoiser:
  """A denoiser whose predictions are a mixture.

  Args:
    mixture: the weights.
    conditional: with the conditions of each part, in their order.
    unconditional: without any, of the same process and target.
  """

  def predict(z, t):
    null = unconditional.predict(z, t)
    result = null
    for (weight, _), denoiser in zip(mixture.parts, conditional, strict=True):
      result += weight * (denoiser.predict(z, t) - null)
    return result

  return dataclasses.replace(unconditional, predict=predict)


def guided(
    conditional: Callable[[Any, Any], Any],
    unconditional: Callable[[Any, Any], Any],
    scale: Float[Array, ''] | float,
) -> Callable[[Any, Any], Any]:
  """A prediction of anything: unconditional + scale (conditional - unconditional).

  Args:
    conditional: predicts from z and t.
    unconditional: predicts the same target without the condition.
    scale: see `Plain`.
  """
  return lambda z, t: mixed(conditional(z, t), unconditional(z, t), scale)


def mixed(
    given: Float[Array, '*b D'],
    null: Float[Array, '*b D'],
    scale: Float[Array, ''] | float,
) -> Float[Array, '*b D']:
  """null + scale (given - null); one of them to the bit at 1 and 0."""
  return scale * given + (1 - scale) * null


def _mean(x, mask):
  """Of each row over valid frames and dimensions, [B, 1, 1]."""
  total = jnp.sum(jnp.where(mask[..., None], x, 0), (1, 2), keepdims=True)
  count = jnp.sum(mask, axis=1)[:, None, None] * x.shape[2]
  return total / jnp.maximum(count, 1)


def _deviation(x, mask):
  return jnp.sqrt(_mean((x - _mean(x, mask)) ** 2, mask))
