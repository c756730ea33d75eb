"""Flow maps: from one time of a flow to another in one evaluation.

A map is a callable u(z, t, s), the mean velocity from time t to s <= t (toward
data) of the point that is at z at time t:

    X_{t->s}(z) = z + (s - t) u(z, t, s),   u(z, t, t) = dz/dt

z is [*b, D], and times are [*b] or of the first of these axes only ([B] for z
[B, F, D]): u gets them as they were given, and gives z's shape. Whatever else a
network sees, its parameters too, is in the callable. Errors are squared, [*b]
with the mean over D: mask and weigh them as you like.

    jump(u, z, t, s)                            X_{t->s}(z)
    diagonal_errors(u, z, t, v)                 flow matching: u(z, t, t) to v
    mean_flow_errors(u, z, t, s, v)             MeanFlow
    lagrangian_errors(u, z, t, s, velocity=None, stop='target')
                                                Lagrangian self-distillation
    consistency_errors(u, z, t, moved, m, s)    consistency with a point further on
    adaptive(errors, offset=1e-3, power=1.0)    errors, large ones counting less
    time_pairs(rng, process, density, count, diagonal)   (t, s) to train at
    sample(jumps, u, process, z, times, keys=None, start=0)   with Jumps(noise=0)

v is dz/dt at (z, t), [*b, D]: of a pair, e - x for rectified flow, or better a
teacher's, which may be guided (the map then is the guided flow's). `velocity`
is a callable (z, t) -> [*b, D]. In papers with data at t = 1 (2505.18825, Kyutai)
times are 1 - t and velocities -u.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib

# Maps z, t and s to mean velocities.
Map = Callable[[Any, Any, Any], Any]
# Maps z and t to velocities.
Velocity = Callable[[Any, Any], Any]
# What no gradient goes through, of the velocity at the end of a jump.
Stop = Literal['target', 'none']


def jump(
    u: Map,
    z: Float[Array, '*b D'],
    t: Float[Array, '*n'],
    s: Float[Array, '*n'],
) -> Float[Array, '*b D']:
  """X_{t->s}(z): where the flow takes z from time t to s.

  Args:
    u: the map.
    z: at time t.
    t: times, of all or the first of z's leading axes.
    s: times, of t's shape.

  Raises:
    ValueError: for times whose shapes differ or are no beginning of z's.
  """
  _check(z, t, s)
  (length,) = gaussian.over((s - t,), z)
  return z + length * u(z, t, s)


def diagonal_errors(
    u: Map,
    z: Float[Array, '*b D'],
    t: Float[Array, '*n'],
    v: Float[Array, '*b D'],
) -> Float[Array, '*b']:
  """Flow matching: u(z, t, t) is the velocity at z.

  Args:
    u: the map.
    z: at time t.
    t: times.
    v: velocity at z.

  Raises:
    ValueError: see `jump`; or for a velocity of another shape than z.
  """
  _check(z, t, t, v)
  return _squared(u(z, t, t) - jax.lax.stop_gradient(v))


def mean_flow_errors(
    u: Map,
    z: Float[Array, '*b D'],
    t: Float[Array, '*n'],
    s: Float[Array, '*n'],
    v: Float[Array, '*b D'],
) -> Float[Array, '*b']:
  """MeanFlow: u(z, t, s) to sg[v - (t - s) du/dt] (2505.13447, section 4.1).

  du/dt = (v d/dz + d/dt) u is along the path of z, s fixed: one `jax.jvp`. No
  gradient goes through the target. At s = t it is flow matching.

  Args:
    u: the map.
    z: at time t.
    t: times.
    s: times to jump to.
    v: velocity at z.

  Raises:
    ValueError: see `diagonal_errors`.
  """
  _check(z, t, s, v)
  output, along = jax.jvp(
      lambda z, t: u(z, t, s), (z, t), (v.astype(z.dtype), jnp.ones_like(t))
  )
  (length,) = gaussian.over((t - s,), z)
  return _squared(output - jax.lax.stop_gradient(v - length * along))


def lagrangian_errors(
    u: Map,
    z: Float[Array, '*b D'],
    t: Float[Array, '*n'],
    s: Float[Array, '*n'],
    velocity: Velocity | None = None,
    stop: Stop = 'target',
) -> Float[Array, '*b']:
  """Lagrangian self-distillation: dX_{t->s}(z)/ds is the velocity at X.

  |dX/ds - v(X, s)|^2 (2505.18825; Kyutai's Pocket-TTS), the
  derivative by one `jax.jvp`. It says nothing of the velocity itself: add
  `diagonal_errors`.

  Args:
    u: the map.
    z: at time t.
    t: times.
    s: times to jump to.
    velocity: at X and s: a teacher's; None for the map's own, u(X, s, s).
    stop: 'target' for no gradient through v(X, s). 'none' for all of it: with a
      `velocity` whose weights are stopped, X moves and they do not.

  Raises:
    ValueError: see `jump`; or for another `stop`.
  """
  _check(z, t, s)
  if stop not in ('target', 'none'):
    raise ValueError(f"stop = {stop!r}: expected 'target' or 'none'")
  x, along = jax.jvp(lambda s: jump(u, z, t, s), (s,), (jnp.ones_like(s),))
  target = u(x, s, s) if velocity is None else velocity(x, s)
  if stop == 'target':
    target = jax.lax.stop_gradient(target)
  return _squared(along - target)


def consistency_errors(
    u: Map,
    z: Float[Array, '*b D'],
    t: Float[Array, '*n'],
    moved: Float[Array, '*b D'],
    m: Float[Array, '*n'],
    s: Float[Array, '*n'],
) -> Float[Array, '*b']:
  """A jump to s ends where one from further on the same path does.

  |X_{t->s}(z) - sg X_{m->s}(moved)|^2. With `moved` a teacher's step from t to m
  and s = 0 it is consistency distillation (2303.01469, eq. 7), with any s
  2310.02279's; with a jump of the map itself, 2410.12557's shortcuts.

  Args:
    u: the map.
    z: at time t.
    t: times.
    moved: z further on, at time m.
    m: times between t and s.
    s: times to jump to.

  Raises:
    ValueError: see `diagonal_errors`.
  """
  _check(z, t, s, moved)
  ahead = jax.lax.stop_gradient(jump(u, moved, m, s))
  return _squared(jump(u, z, t, s) - ahead)


def adaptive(
    errors: Float[Array, '*b'],
    offset: Float[Array, ''] | float = 1e-3,
    power: Float[Array, ''] | float = 1.0,
) -> Float[Array, '*b']:
  """errors / sg(errors + offset)^power (2505.13447, section 4.3).

  Args:
    errors: squared ones. That paper's are sums over all numbers of an example
      with an offset of .001: of means it is that, divided by how many there are.
    offset: what they are large beside.
    power: 0 for errors as they are.
  """
  return errors * jax.lax.stop_gradient(errors + offset) ** -power


def time_pairs(
    rng: Key[Array, ''],
    process: gaussian.Gaussian,
    density: times_lib.Density,
    count: int,
    diagonal: Float[Array, ''] | float = 0.0,
) -> tuple[Float[Array, 'B'], Float[Array, 'B']]:
  """(t, s) of rows, s <= t: the larger and the smaller of two draws.

  Args:
    rng: of all rows.
    process: that the density is of.
    density: of each draw; both are stratified.
    count: B.
    diagonal: the share of rows with s = t, which is the larger.
  """
  first, second, order, same = jax.random.split(rng, 4)
  uniforms = times_lib.stratified(first, count)
  others = jax.random.permutation(order, times_lib.stratified(second, count))
  x, y = (density.quantile(process, part) for part in (uniforms, others))
  t, s = jnp.maximum(x, y), jnp.minimum(x, y)
  return t, jnp.where(jax.random.uniform(same, (count,)) < diagonal, t, s)


@dataclasses.dataclass(frozen=True)
class Jumps:
  """How a map goes through times: a jump each.

  Attributes:
    noise: 0 for jumps from time to time. Otherwise a jump is further, to
      (1 - noise) s, and noise is added that leads back to s: at 1 it is to data,
      which multistep consistency sampling does (2303.01469, alg. 1). Every share
      has the same marginals (2310.02279).
  """

  noise: config.Share = 0.0

  # Of the network, each step: what `solvers.Solver` has, too.
  evaluations = 1


def sample(
    jumps: Jumps,
    u: Map,
    process: gaussian.Gaussian,
    z: Float[Array, 'B N D'],
    times: np.ndarray,
    keys: Key[Array, 'B'] | None = None,
    start: Int[Array, 'B'] | int = 0,
) -> Float[Array, 'B N D']:
  """z at the last time, from z at the first, by one jump for each interval.

  Args:
    jumps: of which kind.
    u: the map; its times are [B].
    process: whose flow it is of; used where noise is added.
    z: at the first time: at 1 standard normal noise, `noise.normal(keys, ...)`.
    times: falling within [0, 1], on the host: `times.Grid().times`.
    keys: of the rows, if jumps add noise; steps fold their number in.
    start: the absolute number of each row's first frame.

  Raises:
    ValueError: for times that do not fall, or noise without keys.
  """
  times = times_lib.falling(times)
  if jumps.noise and keys is None:
    raise ValueError(f'{jumps} adds noise: give it the keys of the rows')
  t, s = times[:-1], times[1:]
  landing = (1 - jumps.noise) * s
  (a, b), (a_s, b_s) = process.scales(landing), process.scales(s)
  keep = a_s / a
  fresh = np.sqrt(np.maximum(b_s**2 - (keep * b) ** 2, 0))
  numbers = t, landing, keep, fresh
  numbers = tuple(jnp.asarray(x, z.dtype) for x in numbers)

  def step(z, now):
    index, (t, landing, keep, fresh) = now
    every = (jnp.full(len(z), time) for time in (t, landing))
    z = jump(u, z, *every)
    if jumps.noise:
      each = noise_lib.fold(keys, index)
      noise = noise_lib.normal(each, z.shape[1:], start).astype(z.dtype)
      z = keep * z + fresh * noise
    return z, None

  return jax.lax.scan(step, z, (jnp.arange(len(t)), numbers))[0]


def _squared(difference):
  return jnp.mean(difference**2, axis=-1)


def _check(z, t, s, other=None):
  """Refuses shapes that would broadcast to something else."""
  if jnp.shape(t) != jnp.shape(s):
    raise ValueError(f'times of shapes {jnp.shape(t)} and {jnp.shape(s)}')
  if jnp.shape(t) != z.shape[:-1][: jnp.ndim(t)]:
    raise ValueError(
        f'times of shape {jnp.shape(t)} for z {z.shape}: expected those of its'
        ' first axes, without the last'
    )
  if other is not None and other.shape != z.shape:
    raise ValueError(f'{other.shape} beside z {z.shape}: expected the same')
