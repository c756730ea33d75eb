"""Heads over samples of audio: probabilities of integers on one grid.

Samples are integers of the grid of 2^bits levels, -2^(bits-1) to 2^(bits-1) - 1
(an amplitude times 2^(bits-1), rounded). Whatever a head is inside, it gives
each level a probability, and these add up to 1: so bits per sample of all heads
are of one kind. A head has

  log_prob(h [*b D], samples [*b C], bits) -> [*b C] float32, nats;
  sample(h [B D], keys [B], temperature, channels, bits) -> samples [B C].

The C channels of a sample are independent given the past. Each row is drawn with
a key of its own, so that it depends on no other row. Temperatures are
traced: changing one does not compile again. 0 takes what is likeliest.
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.ops import companding
from audiolm_jax.ops import draws
from audiolm_jax.ops import sharding

# Log scales (of levels): a distribution of the least is all on one level, or on
# two; one of the largest is flat over 16 bits.
_LOG_SCALES = (-5.0, 16.0)
# Means are held within so many times full scale.
_MOST_MEAN = 16.0
# Cells wider than this (in scales) are differences of CDFs; others, quadrature.
_NARROW = 0.125


def to_grid(audio: Float[Array, '*b'], bits: int) -> Int[Array, '*b']:
  """The nearest levels of amplitudes in [-1, 1); others are clipped."""
  half = 2 ** (bits - 1)
  return jnp.clip(jnp.round(audio * half), -half, half - 1).astype(jnp.int32)


def from_grid(samples: Int[Array, '*b'], bits: int) -> Float[Array, '*b']:
  """Amplitudes in [-1, 1) of levels."""
  return samples.astype(jnp.float32) / 2 ** (bits - 1)


@functools.cache
def mu_law_classes(bits: int, classes: int) -> Int[np.ndarray, 'L']:
  """The mu-law class of every level, from the lowest up.

  The curve of `companding.compress` with mu = classes - 1, rounded to `classes` values as in WaveNet (1609.03499, 2.2). On
  coarse grids some classes near zero hold no level.
  """
  half = 2 ** (bits - 1)
  x = np.arange(-half, half) / half
  mu = classes - 1
  y = companding.compress(x, mu)
  return np.floor((y + 1) / 2 * mu + 0.5).astype(np.int32)


class _Head(nn.Module):

  @nn.compact
  def _outputs(self, h, channels, features):
    """A linear map of h [*b D] for each channel: [*b C features], float32."""
    kernel = ops.weight(
        self,
        'kernel',
        nn.initializers.normal(0.02),
        (channels, h.shape[-1], features),
        ('slots', 'embed', 'vocab'),
    )
    shape = (channels * features,)
    bias = ops.weight(self, 'bias', nn.initializers.zeros, shape, (None,))
    flat = h.reshape(-1, h.shape[-1])
    y = ops.einsum('nd,cdv->ncv', flat, kernel).astype(jnp.float32)
    y = y + ops.materialize(bias).reshape(channels, features)
    y = y.reshape(*h.shape[:-1], channels, features)
    return sharding.constrain(y, ('batch',))


class MuLaw(_Head):
  """A softmax over mu-law classes, each spread evenly over its levels.

  A class is a run of levels: log p(level) = log p(class) - log(its levels).
  Classes without a level get no probability.

  Attributes:
    classes: mu + 1.
  """

  classes: Annotated[int, config.Range(min=2, max=65536)] = 256

  @nn.nowrap
  def counts(self, bits: int) -> Int[np.ndarray, 'V']:
    """Levels in each class."""
    classes = mu_law_classes(bits, self.classes)
    return np.bincount(classes, minlength=self.classes)

  def _logits(self, h, channels, bits):
    logits = self._outputs(h, channels, self.classes)
    return jnp.where(self.counts(bits) > 0, logits, -jnp.inf)

  def log_prob(
      self, h: Float[Array, '*b D'], samples: Int[Array, '*b C'], bits: int
  ) -> Float[Array, '*b C']:
    """Log-probabilities of samples on the grid, nats."""
    table = jnp.asarray(mu_law_classes(bits, self.classes))
    scores = table[samples + 2 ** (bits - 1)]
    logits = self._logits(h, samples.shape[-1], bits)
    log_prob = jax.nn.log_softmax(logits, axis=-1)
    log_prob = jnp.take_along_axis(log_prob, scores[..., None], axis=-1)
    log_counts = np.log(np.maximum(self.counts(bits), 1)).astype(np.float32)
    return log_prob[..., 0] - jnp.asarray(log_counts)[scores]

  def sample(
      self,
      h: Float[Array, 'B D'],
      keys: Key[Array, 'B'],
      temperature: Float[Array, ''] | float,
      channels: int,
      bits: int,
  ) -> Int[Array, 'B C']:
    """A class at this temperature, then one of its levels (or the middle)."""
    keys, within = jax.vmap(jax.random.split, out_axes=1)(keys)
    logits = self._logits(h, channels, bits) / _positive(temperature)
    chosen = draws.categorical(keys, logits)
    place = _draws(jax.random.uniform, within, channels)
    place = jnp.where(temperature > 0, place, 0.5)
    counts = self.counts(bits)
    first = jnp.asarray(np.cumsum(counts) - counts)[chosen]
    counts = jnp.asarray(counts)[chosen]
    offset = jnp.minimum((place * counts).astype(jnp.int32), counts - 1)
    return (first + offset - 2 ** (bits - 1)).astype(jnp.int32)


class _Mixture(_Head):
  """A mixture of densities, integrated over the cells of the grid."""

  mixtures: config.Positive = 1

  def _parameters(self, h, channels, bits):
    """(logits of the components, means, log scales) [*b C M], in levels."""
    half = 2 ** (bits - 1)
    # Components start narrow and wide: the scale of speech is in between.
    spread = np.linspace(-5.0, -1.0, self.mixtures + 2)[1:-1]
    raw = self._outputs(h, channels, 3 * self.mixtures)
    logits, means, log_scales = jnp.split(raw, 3, axis=-1)
    means = jnp.clip(means, -_MOST_MEAN, _MOST_MEAN) * half
    log_scales = log_scales + (np.log(half) + spread).astype(np.float32)
    return logits, means, jnp.clip(log_scales, *_LOG_SCALES)

  def log_prob(
      self, h: Float[Array, '*b D'], samples: Int[Array, '*b C'], bits: int
  ) -> Float[Array, '*b C']:
    """Log-probabilities of samples on the grid, nats."""
    logits, means, log_scales = self._parameters(h, samples.shape[-1], bits)
    mass = self._log_mass(samples[..., None], means, log_scales, bits)
    weights = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(weights + mass, axis=-1)

  def sample(
      self,
      h: Float[Array, 'B D'],
      keys: Key[Array, 'B'],
      temperature: Float[Array, ''] | float,
      channels: int,
      bits: int,
  ) -> Int[Array, 'B C']:
    """A component at this temperature, then a value of its scaled density.

    At 0: the mean of the likeliest component.
    """
    keys, within = jax.vmap(jax.random.split, out_axes=1)(keys)
    logits, *rest = self._parameters(h, channels, bits)
    logits = logits / _positive(temperature)
    chosen = draws.categorical(keys, logits)[..., None]
    mean, log_scale = (
        jnp.take_along_axis(p, chosen, axis=-1)[..., 0] for p in rest
    )
    noise = _draws(self._draw, within, channels)
    value = mean + temperature * jnp.exp(log_scale) * noise
    half = 2 ** (bits - 1)
    return jnp.clip(jnp.round(value), -half, half - 1).astype(jnp.int32)


class Logistics(_Mixture):
  """A discretised mixture of logistic distributions (1701.05517, eq. 2).

  Attributes:
    mixtures: components.
  """

  mixtures: config.Positive = 10

  @nn.nowrap
  def _log_mass(self, *arguments):
    return logistic_log_mass(*arguments)

  @nn.nowrap
  def _draw(self, rng, shape):
    return jax.random.logistic(rng, shape)


class Gaussian(_Mixture):
  """A discretised Gaussian, or a mixture of them.

  Attributes:
    mixtures: components.
  """

  @nn.nowrap
  def _log_mass(self, *arguments):
    return gaussian_log_mass(*arguments)

  @nn.nowrap
  def _draw(self, rng, shape):
    return jax.random.normal(rng, shape)


HEADS = {'mu_law': MuLaw, 'logistics': Logistics, 'gaussian': Gaussian}


def logistic_log_mass(
    samples: Int[Array, '*b'],
    means: Float[Array, '*b'],
    log_scales: Float[Array, '*b'],
    bits: int,
) -> Float[Array, '*b']:
  """log(S(b) - S(a)) of the cells [a, b] = sample -+ 1/2, S the logistic CDF.

  The lowest cell reaches to -inf, the highest to inf. For cells in between

    S(b) - S(a) = S(b) S(-a) (1 - exp(a - b)),

  which is exact, takes no difference of numbers near each other and, as its
  logarithm is a sum, has no gradient that overflows.

  Args:
    samples: levels of the grid.
    means: in levels.
    log_scales: of levels.
    bits: of the grid.
  """
  low, high, width, lowest, highest = _cells(samples, means, log_scales, bits)
  above = -jax.nn.softplus(low)  # log S(-a)
  below = -jax.nn.softplus(-high)  # log S(b)
  inside = jnp.log(-jnp.expm1(-width))
  return (
      jnp.where(lowest, 0.0, above)
      + jnp.where(highest, 0.0, below)
      + jnp.where(lowest | highest, 0.0, inside)
  )


def gaussian_log_mass(
    samples: Int[Array, '*b'],
    means: Float[Array, '*b'],
    log_scales: Float[Array, '*b'],
    bits: int,
) -> Float[Array, '*b']:
  """log(P(b) - P(a)) of the cells [a, b] = sample -+ 1/2, P the normal CDF.

  The lowest cell reaches to -inf, the highest to inf. Wide cells in between are
  log P(b) + log(1 - exp(log P(a) - log P(b))), on the side of zero where P is
  small. For narrow ones that is a difference of numbers too near each other,
  so their density is integrated by Gauss and Legendre's rule of 5 points.

  Args:
    samples: levels of the grid.
    means: in levels.
    log_scales: of levels.
    bits: of the grid.
  """
  low, high, width, lowest, highest = _cells(samples, means, log_scales, bits)
  # By symmetry, cells whose middle is not above zero are enough.
  middle = -jnp.abs((low + high) / 2)

  wide = jnp.maximum(width, _NARROW)
  b = middle + wide / 2
  log_b = _log_ndtr(b)
  ratio = log_b - _log_ndtr(middle - wide / 2)
  # What it is at least: far out, a and b may be the same number.
  ratio = jnp.maximum(ratio, -middle * wide)
  difference = log_b + jnp.log(-jnp.expm1(-ratio))

  narrow = jnp.minimum(width, _NARROW)
  points, weights = np.polynomial.legendre.leggauss(5)
  t = jnp.asarray(points / 2, jnp.float32) * narrow[..., None]
  density = jax.nn.logsumexp(
      -t * (middle[..., None] + t / 2),
      axis=-1,
      b=jnp.asarray(weights / 2, jnp.float32),
  )
  density = density - 0.5 * (jnp.square(middle) + np.log(2 * np.pi))
  quadrature = density + jnp.log(narrow)

  inside = jnp.where(width > _NARROW, difference, quadrature)
  inside = jnp.where(highest, _log_ndtr(-low), inside)
  return jnp.where(lowest, _log_ndtr(high), inside)


def _cells(samples, means, log_scales, bits):
  """Cells in scales from the mean: (low, high, width, is lowest, is highest).

  The high end of a cell is to the bit the low end of the next: sums telescope.
  """
  half = 2 ** (bits - 1)
  samples = samples.astype(jnp.float32)
  width = jnp.exp(-log_scales)
  low = (samples - 0.5 - means) * width
  high = (samples + 0.5 - means) * width
  return low, high, width, samples == -half, samples == half - 1


def _log_ndtr(x):
  """log of the normal CDF, and its gradient, at any x.

  jax.scipy's gradient takes a difference of numbers as large as x^2 / 2: it is
  wrong by factors below -1e3 and overflows below -1e7. The tail here is the
  asymptotic series itself.
  """
  near, far = jnp.maximum(x, -8.0), jnp.minimum(x, -8.0)
  i = 1 / jnp.square(far)
  series = -i * (1 - 3 * i * (1 - 5 * i * (1 - 7 * i * (1 - 9 * i))))
  tail = -0.5 * (jnp.square(far) + np.log(2 * np.pi)) - jnp.log(-far)
  return jnp.where(
      x < -8, tail + jnp.log1p(series), jax.scipy.special.log_ndtr(near)
  )


def _draws(draw, keys, channels):
  """[B, C] of keys [B]."""
  return jax.vmap(lambda key: draw(key, (channels,)))(keys)


def _positive(temperature):
  """A divisor: so small for 0 that the likeliest wins."""
  return jnp.maximum(temperature, 1e-6)
