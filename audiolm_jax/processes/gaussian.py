"""Gaussian processes z = a(t) x + b(t) e, from data at t = 0 to noise at t = 1.

x is data, e standard normal noise, l = log(a^2 / b^2) the log signal-to-noise
ratio, and ' the derivative by t. What a network predicts is one of

    x   data
    e   noise
    v   a e - b x                (2202.00512)
    u   a' x + b' e              the velocity of z; e - x for rectified flow

and each follows from any other, given z and t. Papers with data at t = 1 (F5,
JASCO, Kyutai) have 1 - t for t and -u for u.

Times on the host (floats, numpy arrays) give numpy arrays in their precision;
JAX's give JAX's.
"""

import abc
from collections.abc import Callable
import dataclasses
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import config

Target = Literal['x', 'e', 'v', 'u']
# [B], or [B, N] of frames with times of their own, for z [B, N, D].
Times = Float[Array, 'B *N'] | np.ndarray | float


class Estimate(NamedTuple):
  """The data and the noise that a prediction says z is made of."""

  x: Any
  e: Any


class Gaussian(abc.ABC):
  """A process; to add one, give these four and a line in `PROCESSES`."""

  @abc.abstractmethod
  def scales(self, t: Times) -> tuple[Any, Any]:
    """(a, b): exactly (1, 0) at t = 0."""

  @abc.abstractmethod
  def slopes(self, t: Times) -> tuple[Any, Any]:
    """(a', b')."""

  @abc.abstractmethod
  def log_snr(self, t: Times) -> Any:
    """l, which falls as t rises; infinite where a or b is 0."""

  @abc.abstractmethod
  def time_of_log_snr(self, log_snr: Times) -> Any:
    """The inverse of `log_snr`."""

  def log_snr_slope(self, t: Times) -> Any:
    """l' < 0."""
    (a, b), (da, db) = self.scales(t), self.slopes(t)
    return 2 * (da * b - a * db) / (a * b)

  def corrupt(
      self, x: Float[Array, 'B *N D'], e: Float[Array, 'B *N D'], t: Times
  ) -> Float[Array, 'B *N D']:
    """z at time t."""
    a, b = over(self.scales(t), x)
    return a * x + b * e

  def target(
      self,
      kind: Target,
      x: Float[Array, 'B *N D'],
      e: Float[Array, 'B *N D'],
      t: Times,
  ) -> Float[Array, 'B *N D']:
    """What a network that predicts `kind` should give."""
    if kind in ('x', 'e'):
      return x if kind == 'x' else e
    if kind == 'v':
      a, b = over(self.scales(t), x)
      return a * e - b * x
    da, db = over(self.slopes(t), x)
    return da * x + db * e

  def estimate(
      self,
      kind: Target,
      output: Float[Array, 'B *N D'],
      z: Float[Array, 'B *N D'],
      t: Times,
  ) -> Estimate:
    """(x, e) of a prediction, so that a x + b e = z.

    Not finite where the prediction leaves them open: see `check`.
    """
    a, b = over(self.scales(t), z)
    if kind == 'x':
      return Estimate(output, (z - a * output) / b)
    if kind == 'e':
      return Estimate((z - b * output) / a, output)
    if kind == 'v':
      norm = a**2 + b**2
      return Estimate((a * z - b * output) / norm, (b * z + a * output) / norm)
    da, db = over(self.slopes(t), z)
    norm = da * b - a * db
    return Estimate((b * output - db * z) / norm, (da * z - a * output) / norm)

  def convert(
      self,
      old: Target,
      new: Target,
      output: Float[Array, 'B *N D'],
      z: Float[Array, 'B *N D'],
      t: Times,
  ) -> Float[Array, 'B *N D']:
    """A prediction of `old` as one of `new`."""
    if old == new:
      return output
    return self.target(new, *self.estimate(old, output, z, t), t)

  def error_factor(self, kind: Target, t: Times) -> Any:
    """The squared error of a prediction, where that of its x is 1."""
    a, b = self.scales(t)
    if kind == 'x':
      return a**0
    if kind == 'e':
      return (a / b) ** 2
    if kind == 'v':
      return ((a**2 + b**2) / b) ** 2
    da, db = self.slopes(t)
    return ((da * b - a * db) / b) ** 2

  def check(
      self, kind: Target, times: np.ndarray, slopes: bool = False
  ) -> None:
    """Refuses times at which a prediction does not say what x and e are.

    Args:
      kind: what is predicted. Noise tells nothing of data where a = 0, which is
        the start of most sampling; data nothing of noise where b = 0.
      times: at which the network is asked.
      slopes: whether a' and b' are needed.

    Raises:
      ValueError: naming the first such time.
    """
    (a, b), (da, db) = self.scales(times), self.slopes(times)
    open_ = np.zeros(np.shape(times), bool)
    if kind in ('x', 'e'):
      open_ |= (b if kind == 'x' else a) == 0
    if slopes or kind == 'u':
      open_ |= ~np.isfinite(da) | ~np.isfinite(db)
    if open_.any():
      first = np.asarray(times)[open_].ravel()[0]
      raise ValueError(
          f'{type(self).__name__} at t = {first:g}: a prediction of {kind!r}'
          f'{" with the slopes of a and b" if slopes else ""} does not say what'
          " x and e are there. Predict 'v', take another solver, or start or"
          ' end the times elsewhere.'
      )


@dataclasses.dataclass(frozen=True)
class Cosine(Gaussian):
  """a = cos(pi t / 2), b = sin(pi t / 2) (2202.00512): a^2 + b^2 = 1."""

  def scales(self, t):
    xp = host_or_device(t)
    # As two sines: both ends are exact.
    return xp.sin(np.pi / 2 * (1 - t)), xp.sin(np.pi / 2 * t)

  def slopes(self, t):
    a, b = self.scales(t)
    return -np.pi / 2 * b, np.pi / 2 * a

  def log_snr(self, t):
    a, b = self.scales(t)
    return 2 * _log_ratio(a, b)

  def time_of_log_snr(self, log_snr):
    xp = host_or_device(log_snr)
    return 2 / np.pi * xp.arctan(xp.exp(-log_snr / 2))


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(Gaussian):
  """a = 1 - t, b = t (2209.03003; 2210.02747)."""

  def scales(self, t):
    return 1 - t, t

  def slopes(self, t):
    one = t * 0 + 1
    return -one, one

  def log_snr(self, t):
    return 2 * _log_ratio(1 - t, t)

  def time_of_log_snr(self, log_snr):
    return 1 / (1 + host_or_device(log_snr).exp(log_snr / 2))


@dataclasses.dataclass(frozen=True)
class VariancePreserving(Gaussian):
  """The rate of noise grows linearly (2011.13456, eq. 33): a^2 + b^2 = 1.

  a = exp(-t^2 (most - least) / 4 - t least / 2). At t = 1 a little of the data
  is left, .0066 by default, and at t = 0 the slope of b is infinite.

  Attributes:
    least_rate: at t = 0.
    most_rate: at t = 1; larger.
  """

  least_rate: config.NonNegative = 0.1
  most_rate: config.NonNegative = 20.0

  def __post_init__(self):
    if self.most_rate <= self.least_rate:
      raise config.ConfigError(
          f'most_rate = {self.most_rate}: expected more than least_rate ='
          f' {self.least_rate}'
      )

  def _log_a(self, t):
    more = self.most_rate - self.least_rate
    return -(t**2) * more / 4 - t * self.least_rate / 2

  def scales(self, t):
    xp, log_a = host_or_device(t), self._log_a(t)
    return xp.exp(log_a), xp.sqrt(-xp.expm1(2 * log_a))

  def slopes(self, t):
    a, b = self.scales(t)
    more = self.most_rate - self.least_rate
    da = -a * (t * more / 2 + self.least_rate / 2)
    with np.errstate(divide='ignore'):
      return da, -a * da / b

  def log_snr(self, t):
    log_a = self._log_a(t)
    with np.errstate(divide='ignore'):
      noise = host_or_device(t).log(-host_or_device(t).expm1(2 * log_a))
    return 2 * log_a - noise

  def time_of_log_snr(self, log_snr):
    xp = host_or_device(log_snr)
    # -2 log a, which is quadratic in t.
    spent = xp.logaddexp(0.0, -log_snr)
    more = self.most_rate - self.least_rate
    root = xp.sqrt(self.least_rate**2 + 2 * more * spent)
    return 2 * spent / (self.least_rate + root)


PROCESSES = {
    'cosine': Cosine,
    'rectified_flow': RectifiedFlow,
    'variance_preserving': VariancePreserving,
}


@dataclasses.dataclass(frozen=True)
class Denoiser:
  """A prediction, and what it is a prediction of.

  Attributes:
    process: that z comes from.
    target: what is predicted.
    predict: maps z [B, N, D] and t [B] to predictions of z's shape. A network
      with its parameters, conditions, masks and guidance is one; a formula is
      another.
  """

  process: Gaussian
  target: Target
  predict: Callable[[Any, Any], Any]

  def __call__(self, z: Float[Array, 'B *N D'], t: Times) -> Estimate:
    return self.process.estimate(self.target, self.predict(z, t), z, t)

  def velocity(
      self, z: Float[Array, 'B *N D'], t: Times
  ) -> Float[Array, 'B *N D']:
    """dz/dt of the flow without noise: u."""
    output = self.predict(z, t)
    return self.process.convert(self.target, 'u', output, z, t)


def host_or_device(t: Any) -> Any:
  """The module whose functions take t: numpy or jax.numpy."""
  return np if isinstance(t, (int, float, np.ndarray, np.generic)) else jnp


def over(factors: tuple[Any, ...], x: Any) -> tuple[Any, ...]:
  """Factors of rows or frames, so shaped and typed that they multiply x."""

  def shaped(factor):
    factor = jnp.asarray(factor, x.dtype)
    return factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim))

  return tuple(map(shaped, factors))


def _log_ratio(a, b):
  xp = host_or_device(a)
  with np.errstate(divide='ignore'):
    return xp.log(a) - xp.log(b)
