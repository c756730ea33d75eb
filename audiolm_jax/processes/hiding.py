"""Which codes are hidden where a masked decoder is trained.

A hiding is given a level in [0, 1) for each row, the more is hidden the higher
it is (or the lower, for MaskGIT's cosine of uniform numbers: only that levels
are uniform matters), and the places that may be hidden. What it hides goes by
the keys of the row and the absolute frame.
"""

import abc
import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from audiolm_jax import config
from audiolm_jax.processes import discrete
from audiolm_jax.processes import noise as noise_lib


class Hidden(NamedTuple):
  """What is hidden.

  Attributes:
    masked: the places.
    weight: what the nats of a row's hidden places are multiplied by.
  """

  masked: Bool[Array, 'B F K']
  weight: Float[Array, 'B']


class Hiding(abc.ABC):
  """To add one, give these two and a line in `HIDINGS`."""

  # Whether the weighted nats are, in the mean, a bound of -log p.
  bound = False

  @abc.abstractmethod
  def __call__(
      self,
      keys: Key[Array, 'B'],
      level: Float[Array, 'B'],
      free: Bool[Array, 'B F K'],
  ) -> Hidden:
    """Hides some of the free places, at least one if there are any.

    Args:
      keys: of the rows.
      level: in [0, 1).
      free: places that may be hidden.
    """


@dataclasses.dataclass(frozen=True)
class Subset(Hiding):
  """k places of L, k uniform on 1 to L, weighing L / k (2110.02037).

  Its mean is that over all orders of the places of -log p: any-order
  autoregression, and a bound that needs no time. See `discrete.subset_bound`.
  """

  bound = True

  def __call__(self, keys, level, free):
    total = _count(free)
    count = 1 + jnp.floor(level * total).astype(jnp.int32)
    # A level that rounds to 1 in fp32.
    count = jnp.clip(count, 1, jnp.maximum(total, 1))
    masked = discrete.subset(_uniforms(keys, free), free, count)
    return Hidden(masked, (total / count).astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Rate(Hiding):
  """A share of the places that the level says, each hidden one weighing 1.

  MaskGIT's way (2202.04200, section 3.2) and SoundStorm's: no bound.

  Attributes:
    schedule: cosine hides cos(pi u / 2), mostly much; linear 1 - u.
    least: the least share.
  """

  schedule: Literal['cosine', 'linear'] = 'cosine'
  least: config.Share = 0.0

  def __call__(self, keys, level, free):
    total = _count(free)
    rate = _rate(self.schedule, self.least, level)
    # Of shares such as 1/2 the fp32 cosine is a little more.
    count = jnp.ceil(rate * total - 1e-4).astype(jnp.int32)
    masked = discrete.subset(_uniforms(keys, free), free, jnp.maximum(count, 1))
    return Hidden(masked, jnp.ones_like(level))


@dataclasses.dataclass(frozen=True)
class Spans(Hiding):
  """Spans of frames, all free places in them, each weighing 1 (MAGNeT).

  So many spans begin at random frames that the share of hidden frames is, in
  the mean, at least that of `Rate` (2401.04577, section 3.1): they may overlap.

  Attributes:
    frames: of a span.
    schedule: see `Rate`, as least.
    least: the least share.
  """

  frames: Annotated[int, config.Range(min=2)] = 3
  schedule: Literal['cosine', 'linear'] = 'cosine'
  least: config.Share = 0.0

  def __call__(self, keys, level, free):
    frames = free.any(axis=2)
    rate = _rate(self.schedule, self.least, level)
    count = spans_of_rate(rate, _count(frames), free.shape[1], self.frames)
    uniforms = noise_lib.draw(jax.random.uniform, keys, frames.shape[1:])
    starts = discrete.subset(uniforms, frames, jnp.maximum(count, 1))
    masked = covered(starts, self.frames)[..., None] & free
    return Hidden(masked, jnp.ones_like(level))


HIDINGS = {'rate': Rate, 'spans': Spans, 'subset': Subset}


def covered(starts: Bool[Array, 'B F'], frames: int) -> Bool[Array, 'B F']:
  """The frames of spans that begin at `starts`; they end with the row."""
  reached = starts
  for back in range(1, frames):
    reached |= jnp.pad(starts, ((0, 0), (back, 0)))[:, : starts.shape[1]]
  return reached


def spans_of_rate(
    rate: Float[Array, 'B'],
    total: Any,
    most: int,
    frames: int,
) -> Any:
  """The fewest spans that cover at least a share of the frames, in the mean.

  Of T frames u different starts leave one uncovered with the probability
  C(T - w, u) / C(T, u), w the frames of a span, if what stands before the first
  frame is taken to be as likely covered as the others.

  Args:
    rate: the share.
    total: T of each row, at most
    most: so many.
    frames: w.

  Returns:
    [B] u, from 0 to T.
  """
  log_factorial = jax.scipy.special.gammaln(jnp.arange(most + 2) + 1.0)
  u = jnp.arange(most + 1)
  total = total[:, None]

  def at(n):
    return log_factorial[jnp.clip(n, 0, most + 1)]

  left = jnp.exp(
      at(total - frames) + at(total - u) - at(total - frames - u) - at(total)
  )
  left = jnp.where(u <= total - frames, left, 0)
  enough = (1 - left >= rate[:, None] - 1e-4) | (u >= total)
  return jnp.argmax(enough, axis=1)


def _count(free):
  return free.reshape(len(free), -1).sum(1)


def _rate(schedule, least, level):
  cosine = schedule == 'cosine'
  rate = jnp.cos(jnp.pi / 2 * level) if cosine else 1 - level
  return jnp.maximum(rate, least)


def _uniforms(keys, free):
  return noise_lib.draw(jax.random.uniform, keys, free.shape[1:])
