"""From masked codes to codes: which places are revealed at each step.

An order knows nothing of the network: it asks `predict(z, t)` for logits
[B, F, K, V] given codes with the mask at hidden places, and gives the codes of
the next step. Places that are not hidden at the start are given: they come back
untouched. Which places and which codes are drawn apart, with the keys of the row,
the step and the absolute frame.
"""

import abc
from collections.abc import Callable
import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.ops import draws
from audiolm_jax.processes import discrete
from audiolm_jax.processes import hiding
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib

# What a step's keys are folded with.
_PLACES, _CODES = 0, 1


@dataclasses.dataclass(frozen=True)
class Now:
  """A step.

  Attributes:
    t: time before it.
    s: time after it.
    last: whether all must be revealed.
    uniforms: a number for each place.
  """

  t: Any
  s: Any
  last: Any
  uniforms: Float[Array, 'B F K']


class Order(abc.ABC):
  """Which places are revealed; to add one, give this and a line in `ORDERS`."""

  @abc.abstractmethod
  def hidden_after(
      self,
      process: discrete.Absorbing,
      hidden: Bool[Array, 'B F K'],
      free: Bool[Array, 'B F K'],
      log_prob: Float[Array, 'B F K'],
      now: Now,
  ) -> Bool[Array, 'B F K']:
    """The places that are hidden after a step.

    Args:
      process: whose times these are.
      hidden: before it.
      free: places that are not given.
      log_prob: of the codes that are drawn for hidden places.
      now: the step.
    """


@dataclasses.dataclass(frozen=True)
class RandomOrder(Order):
  """Places at random, as the process is reversed: what the bounds are of.

  Attributes:
    remask: share of the most that may be hidden again at each step, so that
      mistakes can be drawn anew (2503.00307, eq. 8): 0 for none.
  """

  remask: config.Share = 0.0

  def hidden_after(self, process, hidden, free, log_prob, now):
    a_t, a_s = process.keep(now.t), process.keep(now.s)
    # Nothing is shown at t = 1, and nothing to be hidden again.
    most = jnp.where(a_t > 0, (1 - a_s) / jnp.where(a_t > 0, a_t, 1), 0)
    again = self.remask * jnp.minimum(most, 1)
    reveal = (a_s - (1 - again) * a_t) / (1 - a_t)
    stays = hidden & (now.uniforms >= reveal)
    return stays | (free & ~hidden & (now.uniforms < again))


@dataclasses.dataclass(frozen=True)
class ConfidenceOrder(Order):
  """The likeliest draws first (MaskGIT, 2202.04200, section 3.2).

  Of n free places, floor(n (1 - a(s))) stay hidden after the step to s, at least
  one before the last: those whose draws have the least log p + noise s g, g
  Gumbel noise. It is no likelihood's sampler.

  Attributes:
    noise: in the choice of places.
  """

  noise: config.NonNegative = 4.5

  def hidden_after(self, process, hidden, free, log_prob, now):
    rows = len(hidden)
    left = hidden.reshape(rows, -1).sum(1)
    # Shares such as 1/2 are a little less in fp32.
    share = 1 - process.keep(now.s) + 1e-6
    count = jnp.floor(free.reshape(rows, -1).sum(1) * share)
    count = jnp.maximum(jnp.minimum(count.astype(left.dtype), left - 1), 1)
    count = jnp.where(now.last, 0, jnp.minimum(count, left))
    confidence = log_prob + self.noise * now.s * _gumbel(now.uniforms)
    return discrete.subset(confidence, hidden, count)


@dataclasses.dataclass(frozen=True)
class SpanOrder(Order):
  """Spans of frames stay hidden, the least likely ones (MAGNeT, 2401.04577).

  After the step to s, spans are hidden that cover the share 1 - a(s) of the
  frames, in the mean over random spans: of all that begin at a free frame those
  whose hidden places have the least mean log p + noise s g, g Gumbel noise.
  Decided places stay as they are.

  Attributes:
    frames: of a span.
    noise: in the choice of spans.
  """

  frames: Annotated[int, config.Range(min=2)] = 3
  noise: config.NonNegative = 4.5

  def hidden_after(self, process, hidden, free, log_prob, now):
    frames = free.any(axis=2)
    share = jnp.broadcast_to(1 - process.keep(now.s), len(hidden))
    count = hiding.spans_of_rate(
        share, frames.sum(1), hidden.shape[1], self.frames
    )
    places = hidden.sum(axis=2)
    total = jnp.where(hidden, log_prob, 0).sum(axis=2)
    places, total = (self._over_span(x) for x in (places, total))
    # Noise of the place that a span begins with.
    confidence = total / jnp.maximum(places, 1)
    confidence += self.noise * now.s * _gumbel(now.uniforms[..., 0])
    starts = discrete.subset(
        confidence, (places > 0) & frames, jnp.where(now.last, 0, count)
    )
    return hiding.covered(starts, self.frames)[..., None] & hidden

  def _over_span(self, x):
    """Sums of [B, F] over the frames of the span that begins at each."""
    padded = jnp.pad(x, ((0, 0), (0, self.frames - 1)))
    return sum(padded[:, i : i + x.shape[1]] for i in range(self.frames))


ORDERS = {
    'confidence': ConfidenceOrder,
    'random': RandomOrder,
    'span': SpanOrder,
}

# Maps logits [B, F, K, V], a key for each place and the time to codes.
Choose = Callable[[Any, Any, Any], Any]


def _choose(logits, keys, t):
  """Codes of the distribution that logits are of."""
  del t
  return draws.categorical(keys, logits)


def sample(
    order: Order,
    process: discrete.Absorbing,
    predict: Callable[[Any, Any], Any],
    codes: Int[Array, 'B F K'],
    hidden: Bool[Array, 'B F K'],
    times: np.ndarray,
    keys: Key[Array, 'B'],
    start: Int[Array, 'B'] | int = 0,
    choose: Choose = _choose,
) -> Int[Array, 'B F K']:
  """Codes, those that are hidden drawn.

  Args:
    order: in which places are revealed.
    process: which code is the mask's.
    predict: maps codes with masks and times [B] to logits [B, F, K, V], by
      which an order knows how likely draws are.
    codes: the given ones; anything where hidden.
    hidden: places to draw: not those of padding.
    times: falling from 1 to 0, on the host: `times.Grid().times`.
    keys: of the rows.
    start: the absolute number of each row's first frame.
    choose: how codes are drawn of logits, such as at a temperature; as they are
      if not given.

  Raises:
    ValueError: for times that do not fall from 1 to 0.
  """
  times = times_lib.falling(times, start=1, end=0)
  free = hidden

  def step(carry, now):
    codes, hidden = carry
    index, t, s, last = now
    each = noise_lib.fold(keys, index)
    logits = predict(process.hide(codes, hidden), jnp.full(len(codes), t))
    places = _place_keys(noise_lib.fold(each, _CODES), codes.shape, start)
    drawn = choose(logits, places, t)
    log_prob = discrete.of_codes(jax.nn.log_softmax(logits), drawn)
    codes = jnp.where(hidden, drawn, codes)
    uniforms = noise_lib.draw(
        jax.random.uniform,
        noise_lib.fold(each, _PLACES),
        codes.shape[1:],
        start,
    )
    now = Now(t, s, last, uniforms)
    return (
        codes,
        order.hidden_after(process, hidden, free, log_prob, now),
    ), None

  return jax.lax.scan(step, (codes, hidden), _steps(times))[0][0]


def _steps(times):
  """Of each step its number, time before and after, and whether it is the last."""
  count = len(times) - 1
  t, s = (jnp.asarray(x, jnp.float32) for x in (times[:-1], times[1:]))
  return jnp.arange(count), t, s, jnp.arange(count) == count - 1


def _place_keys(keys, shape, start):
  """A key for each place [B, F, K]."""
  _, frames, slots = shape
  each = noise_lib.frame_keys(keys, frames, start)
  for_slots = jax.vmap(jax.random.fold_in, (None, 0))
  return jax.vmap(jax.vmap(for_slots, (0, None)), (0, None))(
      each, jnp.arange(slots)
  )


def _gumbel(uniforms):
  return -jnp.log(-jnp.log(jnp.clip(uniforms, 1e-12, 1 - 1e-7)))
