"""Times: at which to train, and through which to sample.

A density is given by its quantile function, so that the same code takes
independent draws, stratified ones and fixed levels:
`density.quantile(process, uniforms)`.
"""

import abc
import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.processes import gaussian


def stratified(rng: Key[Array, ''], count: int) -> Float[Array, 'B']:
  """Uniform numbers, one in each of B equal parts of (0, 1).

  Means over a batch vary less than with independent ones (2107.00630, app. I.1).
  """
  part = jax.random.uniform(rng, (count,))
  # Without the ends, which rounding reaches and where weights are infinite.
  return jnp.clip((jnp.arange(count) + part) / count, 2**-24, 1 - 2**-24)


def falling(
    times: np.ndarray, start: float | None = None, end: float | None = None
) -> np.ndarray:
  """Times of a way from noise to data, in double precision.

  Args:
    times: on the host.
    start: what the first must be; None for any.
    end: what the last must be; None for any.

  Raises:
    ValueError: unless they are two or more, fall, are within [0, 1] and have
      those ends.
  """
  times = np.asarray(times, np.float64)
  falls = times.ndim == 1 and len(times) > 1 and (np.diff(times) < 0).all()
  if not falls or times[0] > 1 or times[-1] < 0:
    raise ValueError(f'times {times}: expected two or more, falling, in [0, 1]')
  for wanted, given, name in (
      (start, times[0], 'noise'),
      (end, times[-1], 'data'),
  ):
    if wanted is not None and given != wanted:
      raise ValueError(
          f'times {times}: expected {wanted:g} at the end of {name}, not'
          f' {given:g}'
      )
  return times


class Density(abc.ABC):
  """How often a time is trained on."""

  @abc.abstractmethod
  def quantile(
      self, process: gaussian.Gaussian, uniforms: Float[Array, '*b']
  ) -> Float[Array, '*b']:
    """Times below which there is this share of the mass."""

  @abc.abstractmethod
  def density(
      self, process: gaussian.Gaussian, t: Float[Array, '*b']
  ) -> Float[Array, '*b']:
    """Its value at times in (0, 1)."""


@dataclasses.dataclass(frozen=True)
class Uniform(Density):
  """Every time as often."""

  def quantile(self, process, uniforms):
    return uniforms

  def density(self, process, t):
    return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class LogitNormal(Density):
  """log(t / (1 - t)) is normal (2403.03206, section 3.1).

  Attributes:
    mean: of the logit; positive for more of the noisy times.
    std: of the logit.
  """

  mean: float = 0.0
  std: Annotated[float, config.Range(min=1e-3)] = 1.0

  def quantile(self, process, uniforms):
    return jax.nn.sigmoid(
        self.mean + self.std * jax.scipy.special.ndtri(uniforms)
    )

  def density(self, process, t):
    logit = jnp.log(t) - jnp.log1p(-t)
    return _normal_density(logit, self.mean, self.std) / (t * (1 - t))


@dataclasses.dataclass(frozen=True)
class LogSnrNormal(Density):
  """The log signal-to-noise ratio is normal, as in EDM (2206.00364, table 1).

  EDM's normal log s of mean m and deviation d, with noise s on data of unit
  scale, is a log SNR of mean -2m and deviation 2d.

  Attributes:
    mean: of log(a^2 / b^2).
    std: of log(a^2 / b^2).
  """

  mean: float = 0.0
  std: Annotated[float, config.Range(min=1e-3)] = 2.0

  def quantile(self, process, uniforms):
    # The ratio falls as time rises.
    normal = -jax.scipy.special.ndtri(uniforms)
    return process.time_of_log_snr(self.mean + self.std * normal)

  def density(self, process, t):
    slope = -process.log_snr_slope(t)
    return slope * _normal_density(process.log_snr(t), self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Shifted(Density):
  """Another density, moved towards noise for long or wide sequences.

  t becomes s t / (1 + (s - 1) t) (2403.03206, section 5.3.2).

  Attributes:
    base: the density that is moved.
    shift: s; 1 leaves all as it is.
  """

  base: Annotated[Any, config.Kind(lambda: DENSITIES)] = Uniform()
  shift: Annotated[float, config.Range(min=1e-3)] = 3.0

  def quantile(self, process, uniforms):
    return shifted(self.base.quantile(process, uniforms), self.shift)

  def density(self, process, t):
    before = shifted(t, 1 / self.shift)
    stretch = (1 + (self.shift - 1) * before) ** 2 / self.shift
    return self.base.density(process, before) * stretch


DENSITIES = {
    'uniform': Uniform,
    'logit_normal': LogitNormal,
    'log_snr_normal': LogSnrNormal,
    'shifted': Shifted,
}


@dataclasses.dataclass(frozen=True)
class Grid:
  """The times that a sampler goes through, from 1 to 0.

  Attributes:
    steps: how many intervals.
    shift: towards noise if above 1: see `Shifted`.
    sway: towards noise if negative, as in F5-TTS (2410.06885, eq. 7): with data
      at 1, t + sway (cos(pi t / 2) - 1 + t). Before the shift.
  """

  steps: config.Positive = 32
  shift: Annotated[float, config.Range(min=1e-3)] = 1.0
  sway: Annotated[float, config.Range(min=-1, max=2 / (math.pi - 2))] = 0.0

  @property
  def times(self) -> np.ndarray:
    """[steps + 1], falling."""
    t = np.linspace(0, 1, self.steps + 1)
    t = 1 - (t + self.sway * (np.cos(np.pi / 2 * t) - 1 + t))
    t[0], t[-1] = 1.0, 0.0
    return shifted(t, self.shift)


@dataclasses.dataclass(frozen=True)
class SnrGrid:
  """Times between which the log SNR rises evenly, and then the data.

  stable-audio's sampler has it, and calls it exponential: so it is in b / a.

  Attributes:
    steps: how many intervals, of which the last ends in data.
    most: b / a at the first time, which is not all noise.
    least: b / a at the last time but that of data.
    process: of a and b.
  """

  steps: config.Positive = 100
  most: Annotated[float, config.Range(min=1e-6)] = 500.0
  least: Annotated[float, config.Range(min=1e-6)] = 0.3
  process: Annotated[Any, config.Kind(lambda: gaussian.PROCESSES)] = (
      gaussian.Cosine()
  )

  def __post_init__(self):
    if self.least >= self.most:
      raise config.ConfigError(
          f'least = {self.least}: expected less than most = {self.most}'
      )

  @property
  def times(self) -> np.ndarray:
    """[steps + 1], falling."""
    ends = -2 * np.log(self.most), -2 * np.log(self.least)
    log_snr = np.linspace(*ends, self.steps)
    return np.append(self.process.time_of_log_snr(log_snr), 0.0)


def shifted(t: Any, shift: float) -> Any:
  """s t / (1 + (s - 1) t)."""
  return shift * t / (1 + (shift - 1) * t)


def _normal_density(x, mean, std):
  return jnp.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
