"""How much the squared error of a prediction counts at each noise level.

Every such loss is half the integral of w(l) (-l') |e - e^|^2 over t, with l the
log signal-to-noise ratio (2303.00848): what is predicted and which process it is
of change a loss by its weight w and by the density of times alone.
`effective` says which w a loss has. Under uniform times rectified flow's u has
w = exp(-l / 2), and v of the cosine process 2 / pi of the same.
"""

import abc
import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax.processes import gaussian


class Weight(abc.ABC):
  """A weight of squared errors, whatever is predicted."""

  @abc.abstractmethod
  def factor(
      self,
      process: gaussian.Gaussian,
      kind: gaussian.Target,
      t: Float[Array, '*b'],
  ) -> Float[Array, '*b']:
    """What the squared error of a prediction of `kind` is multiplied by.

    Args:
      process: that z comes from.
      kind: what is predicted.
      t: in (0, 1).
    """


@dataclasses.dataclass(frozen=True)
class Plain(Weight):
  """1, of the prediction as it is."""

  def factor(self, process, kind, t):
    return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class Bound(Weight):
  """w = 1: the bound of the log-likelihood in nats, up to a constant.

  For uniform times; under another density, divide by it (2107.00630, eq. 17).
  """

  def factor(self, process, kind, t):
    return _of_noise(process, kind, t) * -process.log_snr_slope(t) / 2


@dataclasses.dataclass(frozen=True)
class MinSnr(Weight):
  """min(SNR, most) of the error of x (2303.09556).

  Attributes:
    most: at which ratio a^2 / b^2 the weight stops growing.
  """

  most: Annotated[float, config.Range(min=1e-3)] = 5.0

  def factor(self, process, kind, t):
    snr = jnp.exp(process.log_snr(t))
    return jnp.minimum(snr, self.most) / process.error_factor(kind, t)


@dataclasses.dataclass(frozen=True)
class Sigmoid(Weight):
  """-l' exp(bias) sigmoid(l - bias) of the error of x (2410.19324, eq. 7).

  Attributes:
    bias: the level, as a log signal-to-noise ratio, up to which all counts alike.
  """

  bias: float = -3.0

  def factor(self, process, kind, t):
    level = jax.nn.sigmoid(process.log_snr(t) - self.bias)
    of_x = -process.log_snr_slope(t) * jnp.exp(self.bias) * level
    return of_x / process.error_factor(kind, t)


@dataclasses.dataclass(frozen=True)
class Edm(Weight):
  """(s^2 + d^2) / (s d)^2 of the error of x, s = b / a (2206.00364, table 1).

  Attributes:
    std: d, of the data.
  """

  std: Annotated[float, config.Range(min=1e-3)] = 0.5

  def factor(self, process, kind, t):
    # The same, divided by s: finite at both ends.
    of_x = jnp.exp(process.log_snr(t)) + self.std**-2
    return of_x / process.error_factor(kind, t)


WEIGHTS = {
    'plain': Plain,
    'bound': Bound,
    'min_snr': MinSnr,
    'sigmoid': Sigmoid,
    'edm': Edm,
}


def effective(
    weight: Weight,
    process: gaussian.Gaussian,
    kind: gaussian.Target,
    t: Float[Array, '*b'],
    density: Any = 1.0,
) -> Float[Array, '*b']:
  """w of a loss: two losses with the same are the same objective.

  Args:
    weight: of the loss.
    process: of the loss.
    kind: what is predicted.
    t: in (0, 1).
    density: of times at t.
  """
  bound = Bound().factor(process, kind, t)
  return density * weight.factor(process, kind, t) / bound


def _of_noise(process, kind, t):
  """The squared error of e, where that of the prediction is 1."""
  return process.error_factor('e', t) / process.error_factor(kind, t)
