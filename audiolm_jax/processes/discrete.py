"""Discrete processes: codes that noise hides, or replaces by random ones.

At time t a code is still itself with probability a(t), 1 at data (t = 0) and
exactly 0 at noise (t = 1). Codes are [B, F, K]: rows, frames, slots.
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped
import numpy as np

from audiolm_jax import config
from audiolm_jax.ops import sharding
from audiolm_jax.processes import gaussian


@dataclasses.dataclass(frozen=True)
class _Discrete:
  """A schedule of codes that are kept.

  Attributes:
    vocabulary: V, how many codes there are.
    schedule: of a(t): linear is 1 - t; cosine is 1 - sin(pi t / 2), which keeps
      few codes for long (MaskGIT, 2202.04200).
  """

  vocabulary: Annotated[int, config.Range(min=2)]
  schedule: Literal['linear', 'cosine'] = 'linear'

  def keep(self, t: gaussian.Times) -> Any:
    """a(t)."""
    if self.schedule == 'linear':
      return 1 - t
    # 1 - sin without cancellation, and exactly 0 at t = 1.
    return 2 * gaussian.host_or_device(t).sin(np.pi / 4 * (1 - t)) ** 2

  def keep_slope(self, t: gaussian.Times) -> Any:
    """a'(t) <= 0."""
    xp = gaussian.host_or_device(t)
    if self.schedule == 'linear':
      return -xp.ones_like(t)
    return -np.pi / 2 * xp.sin(np.pi / 2 * (1 - t))


@dataclasses.dataclass(frozen=True)
class Absorbing(_Discrete):
  """Noise hides codes: they become the mask (2107.03006; MDLM, 2406.07524).

  Attributes:
    vocabulary: V. The code V stands for the mask.
    schedule: of what is kept.
  """

  @property
  def mask_id(self) -> int:
    """The code of hidden places."""
    return self.vocabulary

  def hide(
      self, codes: Int[Array, 'B F K'], masked: Bool[Array, 'B F K']
  ) -> Int[Array, 'B F K']:
    """Codes, those that are masked replaced by the mask."""
    return jnp.where(masked, self.mask_id, codes)

  def masked(
      self, uniforms: Float[Array, 'B F K'], t: gaussian.Times
  ) -> Bool[Array, 'B F K']:
    """Which places are masked at time t, by a uniform number for each."""
    (keep,) = gaussian.over((self.keep(t),), uniforms)
    return uniforms >= keep

  def reveal(self, t: gaussian.Times, s: gaussian.Times) -> Any:
    """The probability that a masked place is revealed from t to s < t."""
    return (self.keep(s) - self.keep(t)) / (1 - self.keep(t))

  def bound(
      self,
      log_prob: Float[Array, 'B *n'],
      masked: Bool[Array, 'B *n'],
      t: gaussian.Times,
  ) -> Float[Array, 'B']:
    """-a' / (1 - a) of the masked codes' nats: a bound, in the mean over t.

    At uniform t in (0, 1] and masks of that time its mean is at least -log p of
    the codes (MDLM, eq. 10), and the same for every schedule.

    Args:
      log_prob: of the codes, given those that are not masked.
      masked: of padding False.
      t: of each row.
    """
    factor = -self.keep_slope(t) / (1 - self.keep(t))
    return factor * _hidden(log_prob, masked)

  def step_bound(
      self,
      log_prob: Float[Array, 'B *n'],
      masked: Bool[Array, 'B *n'],
      t: gaussian.Times,
      s: gaussian.Times,
  ) -> Float[Array, 'B']:
    """What the step from t to s adds to the bound of sampling in these steps.

    The sum over the steps of a grid of its means over masks of time t is at
    least -log p of codes that are sampled in these steps, codes of one step
    independently: more than `bound`, and the less the more steps.

    Args:
      log_prob: of the codes, given those that are not masked.
      masked: of padding False.
      t: of each row.
      s: of each row, the next time.
    """
    return self.reveal(t, s) * _hidden(log_prob, masked)


@dataclasses.dataclass(frozen=True)
class Uniform(_Discrete):
  """Noise replaces codes by random ones (2102.05379; 2107.03006, app. A.2).

  Attributes:
    vocabulary: V.
    schedule: of what is kept.
  """

  def corrupt(
      self,
      codes: Int[Array, 'B F K'],
      uniforms: Float[Array, 'B F K'],
      random: Int[Array, 'B F K'],
      t: gaussian.Times,
  ) -> Int[Array, 'B F K']:
    """Codes at time t.

    Args:
      codes: data.
      uniforms: one for each code, which say whether it is kept.
      random: uniform codes to take where it is not (some equal the data's).
      t: of each row.
    """
    (keep,) = gaussian.over((self.keep(t),), uniforms)
    return jnp.where(uniforms < keep, codes, random)

  def posterior(
      self,
      z: Int[Array, 'B *n'],
      clean: Float[Array, 'B *n V'],
      t: gaussian.Times,
      s: gaussian.Times,
  ) -> Float[Array, 'B *n V']:
    """Probabilities of the code at s < t, given those at t.

    For a code x at time 0 it is, with r = a_t / a_s, a mixture: x weighs
    a_s (1 - r) / V and r a_s more where it is z, z itself r (1 - a_s) / V, any
    code (1 - r) (1 - a_s) / V^2. These are averaged over p(x | z), each divided
    by its sum q(z | x): so the posterior is exact where p(x | z) is. (Without
    the division, as in D3PM, p would have to be of the other places only.)

    Args:
      z: codes at time t.
      clean: p(x | z), what a model that sees all of z gives for the code at time
        0; one-hot for the true one.
      t: of each row, above 0.
      s: of each row.
    """
    size = self.vocabulary
    a_t, a_s = (jnp.asarray(self.keep(u), clean.dtype) for u in (t, s))
    after, a, r = gaussian.over((a_t, a_s, a_t / a_s), clean)
    same = jax.nn.one_hot(z, size, dtype=clean.dtype)
    share = clean / (after * same + (1 - after) / size)
    total = share.sum(-1, keepdims=True)
    weights = (
        share * (a * (1 - r) / size + r * a * same)
        + total * same * r * (1 - a) / size
        + total * (1 - r) * (1 - a) / size**2
    )
    return weights / weights.sum(-1, keepdims=True)

  def step_bound(
      self,
      log_prob: Float[Array, 'B *n V'],
      codes: Int[Array, 'B *n'],
      z: Int[Array, 'B *n'],
      mask: Bool[Array, 'B *n'],
      t: gaussian.Times,
      s: gaussian.Times,
  ) -> Float[Array, 'B']:
    """What the step from t to s adds to the bound of -log p of the codes.

    The divergence of the model's posterior from the true one; at s = 0 that is
    -log p of the codes by the model's posterior.

    Args:
      log_prob: of all codes at time 0, by the model, which sees z.
      codes: data.
      z: codes at time t.
      mask: False for padding.
      t: of each row.
      s: of each row.
    """
    clean = jax.nn.one_hot(codes, self.vocabulary, dtype=log_prob.dtype)
    true = self.posterior(z, clean, t, s)
    model = self.posterior(z, jnp.exp(log_prob), t, s)
    # Of codes that cannot be, 0 log 0.
    ratio = jnp.log(jnp.where(true > 0, true, 1)) - jnp.log(
        jnp.where(true > 0, model, 1)
    )
    return _hidden(-jnp.sum(true * ratio, axis=-1), mask)


DISCRETE = {'absorbing': Absorbing, 'uniform': Uniform}


def subset(
    numbers: Float[Array, 'B *n'],
    valid: Bool[Array, 'B *n'],
    count: Int[Array, 'B'],
) -> Bool[Array, 'B *n']:
  """The places of the least numbers, of each row so many.

  Of random numbers it is a uniformly random subset.

  Args:
    numbers: one for each place.
    valid: where False, a place is never in it.
    count: how many; all valid ones if there are no more.
  """

  def lowest(numbers, valid, count):
    flat = jnp.where(valid, numbers, jnp.inf).reshape(len(numbers), -1)
    rank = jnp.argsort(jnp.argsort(flat, axis=1), axis=1)
    return (rank < count[:, None]).reshape(valid.shape) & valid

  return sharding.by_rows(lowest, numbers, valid, count)


def subset_bound(
    log_prob: Float[Array, 'B *n'],
    masked: Bool[Array, 'B *n'],
    valid: Bool[Array, 'B *n'],
) -> Float[Array, 'B']:
  """(L / k) times the nats of k masked codes of L: a bound, in the mean.

  With k uniform on 1 to L and `masked` a uniform subset of k places, the mean is
  that of -log p over all orders of the places (2110.02037): exactly the entropy
  for a model whose conditionals are exact. No time occurs.

  Args:
    log_prob: of the codes, given those that are not masked.
    masked: k of the valid places, at least one.
    valid: the places of the row.
  """
  rows = len(log_prob)
  total = valid.reshape(rows, -1).sum(1)
  count = masked.reshape(rows, -1).sum(1)
  return total / count * _hidden(log_prob, masked)


def _hidden(log_prob, masked):
  """Nats of masked codes, by row."""
  nats = jnp.where(masked, -log_prob, 0)
  return nats.reshape(len(nats), -1).sum(1)


def of_codes(
    log_prob: Float[Array, 'B *n V'], codes: Shaped[Array, 'B *n']
) -> Float[Array, 'B *n']:
  """The log-probabilities of these codes."""
  return jnp.take_along_axis(log_prob, codes[..., None], axis=-1)[..., 0]
