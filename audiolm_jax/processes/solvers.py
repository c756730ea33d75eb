"""Steps from noise to data, for any Gaussian process and any prediction.

A solver knows neither the network nor what it predicts: it asks a
`gaussian.Denoiser` for the data and noise that z is made of, and moves z from
time t to s < t. What it multiplies by depends on the times only, and is computed
beforehand in double precision.
"""

import abc
from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib

# Numbers of each step [steps], by name.
Numbers = dict[str, Any]


class Solver(abc.ABC):
  """One kind of step; to add one, give these and a line in `SOLVERS`.

  Attributes:
    needs_slopes: whether it asks for a' and b'.
    evaluations: of the network, each step.
  """

  needs_slopes = False
  evaluations = 1

  @property
  def is_random(self) -> bool:
    """Whether steps add noise."""
    return False

  def visited(self, times: np.ndarray) -> np.ndarray:
    """The times at which the network is asked."""
    return times[:-1]

  @abc.abstractmethod
  def numbers(self, process: gaussian.Gaussian, times: np.ndarray) -> Numbers:
    """What each step multiplies by, beside 't' and 's'."""

  @abc.abstractmethod
  def step(
      self,
      denoiser: gaussian.Denoiser,
      z: Float[Array, 'B N D'],
      before: Float[Array, 'B N D'],
      noise: Float[Array, 'B N D'] | float,
      now: Numbers,
  ) -> tuple[Float[Array, 'B N D'], Float[Array, 'B N D']]:
    """z at the next time, and what the next step gets as `before`.

    Args:
      denoiser: of z and times [B].
      z: at time t.
      before: of the step before; zeros at the first.
      noise: standard normal, if the solver is random.
      now: this step's numbers.
    """


@dataclasses.dataclass(frozen=True)
class Euler(Solver):
  """z + (s - t) u(z, t): of first order."""

  needs_slopes = True

  def numbers(self, process, times):
    t, s = times[:-1], times[1:]
    da, db = process.slopes(t)
    return {'x': (s - t) * da, 'e': (s - t) * db}

  def step(self, denoiser, z, before, noise, now):
    x, e = _ask(denoiser, z, now['t'])
    return z + now['x'] * x + now['e'] * e, before


@dataclasses.dataclass(frozen=True)
class Heun(Solver):
  """The mean of the velocities at both ends: of second order (2206.00364)."""

  needs_slopes = True
  evaluations = 2

  def visited(self, times):
    return times

  def numbers(self, process, times):
    t, s = times[:-1], times[1:]
    (da, db), (da_s, db_s) = process.slopes(t), process.slopes(s)
    h = s - t
    return {'x': h * da, 'e': h * db, 'x_end': h * da_s, 'e_end': h * db_s}

  def step(self, denoiser, z, before, noise, now):
    x, e = _ask(denoiser, z, now['t'])
    first = now['x'] * x + now['e'] * e
    x, e = _ask(denoiser, z + first, now['s'])
    second = now['x_end'] * x + now['e_end'] * e
    return z + (first + second) / 2, before


@dataclasses.dataclass(frozen=True)
class Midpoint(Solver):
  """The velocity in the middle: of second order."""

  needs_slopes = True
  evaluations = 2

  def visited(self, times):
    return np.concatenate([times[:-1], (times[:-1] + times[1:]) / 2])

  def numbers(self, process, times):
    t, s = times[:-1], times[1:]
    middle, h = (t + s) / 2, s - t
    (da, db), (da_m, db_m) = process.slopes(t), process.slopes(middle)
    return {
        'middle': middle,
        'x': h / 2 * da,
        'e': h / 2 * db,
        'x_middle': h * da_m,
        'e_middle': h * db_m,
    }

  def step(self, denoiser, z, before, noise, now):
    x, e = _ask(denoiser, z, now['t'])
    half = z + now['x'] * x + now['e'] * e
    x, e = _ask(denoiser, half, now['middle'])
    return z + now['x_middle'] * x + now['e_middle'] * e, before


@dataclasses.dataclass(frozen=True)
class Ddim(Solver):
  """a_s x^ + sqrt(b_s^2 - sigma^2) e^ + sigma n (2010.02502, eq. 12).

  sigma = noise b_s sqrt(1 - (a_t b_s / (a_s b_t))^2), which is that paper's for
  processes that preserve the variance, and right for all.

  Attributes:
    noise: 0 for none, 1 for ancestral sampling (2006.11239).
  """

  noise: config.Share = 0.0

  @property
  def is_random(self):
    return self.noise > 0

  def numbers(self, process, times):
    (a, b), _, decay = _ends(process, times)
    sigma = self.noise * b * np.sqrt(1 - decay**2)
    return {'x': a, 'e': np.sqrt(b**2 - sigma**2), 'noise': sigma}

  def step(self, denoiser, z, before, noise, now):
    x, e = _ask(denoiser, z, now['t'])
    return now['x'] * x + now['e'] * e + now['noise'] * noise, before


@dataclasses.dataclass(frozen=True)
class PingPong(Solver):
  """The data estimated, then noise anew: a_s x^ + b_s n (2303.01469, alg. 1).

  For predictions that are good in one step (consistency models).
  """

  @property
  def is_random(self):
    return True

  def numbers(self, process, times):
    a, b = process.scales(times[1:])
    return {'x': a, 'noise': b}

  def step(self, denoiser, z, before, noise, now):
    x, _ = _ask(denoiser, z, now['t'])
    return now['x'] * x + now['noise'] * noise, before


@dataclasses.dataclass(frozen=True)
class Dpm2m(Solver):
  """DPM-Solver++(2M): multistep, of second order (2211.01095, alg. 2).

  The step to data, the first, and, where the first starts from noise alone, the
  second have no finite step of log SNR to build on, and are of first order.

  Attributes:
    random: the form that follows the stochastic equation (SDE-DPM-Solver++(2M)).
  """

  random: bool = False

  @property
  def is_random(self):
    return self.random

  def numbers(self, process, times):
    (a, b), (_, b_t), decay = _ends(process, times)
    with np.errstate(divide='ignore'):
      h = -np.log(decay)
    # Half of this step's length over that of the step before.
    lean = np.zeros(len(h))
    for i in range(1, len(h)):
      if np.isfinite(h[i]) and np.isfinite(h[i - 1]):
        lean[i] = h[i] / (2 * h[i - 1])
    if self.random:
      return {
          'z': b / b_t * decay,
          'x': a * (1 - decay**2),
          'lean': lean,
          'noise': b * np.sqrt(1 - decay**2),
      }
    zeros = np.zeros(len(h))
    return {'z': b / b_t, 'x': a * (1 - decay), 'lean': lean, 'noise': zeros}

  def step(self, denoiser, z, before, noise, now):
    x, _ = _ask(denoiser, z, now['t'])
    ahead = x + now['lean'] * (x - before)
    return now['z'] * z + now['x'] * ahead + now['noise'] * noise, x


@dataclasses.dataclass(frozen=True)
class Sde(Solver):
  """Euler and Maruyama's step of the stochastic equation (2303.08797, eq. 2.33).

  dz = (u - g^2 score / 2) dt + g dW backward in time, with g^2 = 2 strength a b,
  which is 0 at both ends, and score -e^ / b. Every g has the same marginals.

  Attributes:
    strength: of the noise.
  """

  strength: config.NonNegative = 1.0
  needs_slopes = True

  @property
  def is_random(self):
    return self.strength > 0

  def numbers(self, process, times):
    t, s = times[:-1], times[1:]
    (a, b), (da, db), h = process.scales(t), process.slopes(t), t - s
    return {
        'x': -h * da,
        'e': -h * (db + self.strength * a),
        'noise': np.sqrt(2 * self.strength * a * b * h),
    }

  def step(self, denoiser, z, before, noise, now):
    x, e = _ask(denoiser, z, now['t'])
    return z + now['x'] * x + now['e'] * e + now['noise'] * noise, before


SOLVERS = {
    'euler': Euler,
    'heun': Heun,
    'midpoint': Midpoint,
    'ddim': Ddim,
    'ping_pong': PingPong,
    'dpm_2m': Dpm2m,
    'sde': Sde,
}


def sample(
    solver: Solver,
    denoiser: gaussian.Denoiser,
    z: Float[Array, 'B N D'],
    times: np.ndarray,
    keys: Key[Array, 'B'] | None = None,
    start: Int[Array, 'B'] | int = 0,
    spread: float = 1.0,
) -> Float[Array, 'B N D']:
  """z at the last time, from z at the first.

  Args:
    solver: which steps.
    denoiser: of z.
    z: of time 1, standard normal noise: `noise.normal(keys, ...)`.
    times: falling within [0, 1], on the host: `times.Grid().times`.
    keys: of the rows, if the solver is random; steps fold their number in.
    start: the absolute number of each row's first frame.
    spread: deviation of the noise that random solvers add; 1 keeps the marginals.

  Raises:
    ValueError: for times that do not fall or at which the prediction says too
      little (`Gaussian.check`), or a random solver without keys.
  """
  process, target = denoiser.process, denoiser.target
  numbers = _numbers(solver, process, target, times, keys, z.dtype)

  def step(carry, now):
    index, now = now
    noise = _noise(solver, keys, index, z, start, spread)
    return solver.step(denoiser, *carry, noise, now), None

  steps = jnp.arange(len(numbers['t'])), numbers
  return jax.lax.scan(step, (z, jnp.zeros_like(z)), steps)[0][0]


def sample_block(
    solver: Solver,
    predict: Callable[[Any, Any, Any], tuple[Any, Any]],
    of: tuple[gaussian.Gaussian, gaussian.Target],
    z: Float[Array, 'B N D'],
    times: np.ndarray,
    states: Any,
    keys: Key[Array, 'B'] | None = None,
    start: Int[Array, 'B'] | int = 0,
) -> tuple[Float[Array, 'B N D'], Any]:
  """`sample` of the next frames of rows whose network remembers those before.

  It remembers them at each time at which it is asked: so its prediction is what
  it would be of the whole row, where it never looks ahead of these frames.

  Args:
    solver: which steps.
    predict: maps z, t and a state to a prediction and the next state.
    of: the process that z comes from, and what is predicted.
    z: of time 1.
    times: falling within [0, 1], on the host.
    states: leaves [steps, evaluations, ...]: before these frames.
    keys: of the rows, if the solver is random.
    start: the absolute number of each row's first frame.

  Returns:
    z at the last time; the states after these frames.

  Raises:
    ValueError: see `sample`.
  """
  numbers = _numbers(solver, *of, times, keys, z.dtype)

  def step(carry, now):
    index, now, before = now
    noise, after = _noise(solver, keys, index, z, start, 1.0), []

    def remembered(z, t):
      own = jax.tree.map(lambda x: x[len(after)], before)
      output, state = predict(z, t, own)
      after.append(state)
      return output

    denoiser = gaussian.Denoiser(*of, remembered)
    carry = solver.step(denoiser, *carry, noise, now)
    return carry, jax.tree.map(lambda *each: jnp.stack(each), *after)

  steps = jnp.arange(len(numbers['t'])), numbers, states
  (z, _), states = jax.lax.scan(step, (z, jnp.zeros_like(z)), steps)
  return z, states


def _numbers(solver, process, target, times, keys, dtype):
  """What each step multiplies by [steps], checked, on the device."""
  times = times_lib.falling(times)
  visited = solver.visited(times)
  process.check(target, visited, solver.needs_slopes)
  if solver.is_random and keys is None:
    raise ValueError(f'{solver} adds noise: give it the keys of the rows')
  numbers = solver.numbers(process, times)
  numbers |= {'t': times[:-1], 's': times[1:]}
  return {k: jnp.asarray(v, dtype) for k, v in numbers.items()}


def _noise(solver, keys, index, z, start, spread):
  """What a step adds, before it is multiplied: 0 of solvers that add none."""
  if not solver.is_random:
    return 0.0
  each = noise_lib.fold(keys, index)
  noise = noise_lib.normal(each, z.shape[1:], start).astype(z.dtype)
  # At 1 nothing is multiplied, and programs stay what they were.
  return noise if spread == 1 else spread * noise


def _ask(denoiser, z, t):
  return denoiser(z, jnp.full(z.shape[0], t))


def _ends(process, times):
  """(a, b) at s and at t, and a_t b_s / (a_s b_t): exp of minus the step's h."""
  a_t, b_t = process.scales(times[:-1])
  a_s, b_s = process.scales(times[1:])
  return (a_s, b_s), (a_t, b_t), a_t * b_s / (a_s * b_t)
