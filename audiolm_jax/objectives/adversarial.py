"""Losses between a codec and its discriminators, as sums that add over rows.

Every loss of a row is the mean over a sub-discriminator's own positions in the
row, combined over sub-discriminators. A term is (sum over rows of length x loss
of the row, sum of lengths): a mean over rows, weighted by their valid samples.
The weight counts samples only, so it is a constant to the gradient;
microbatches add exactly; a row's share does not depend on how the batch is
padded.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax.objectives import discriminators

Term = tuple[Float[Array, ''], Float[Array, '']]
Reduction = Literal['mean', 'sum']
Verdicts = Sequence[discriminators.Verdict]


class Loss(NamedTuple):
  """Elementwise functions of logits.

  Attributes:
    real: the discriminator's, of real audio.
    fake: the discriminator's, of decoded audio.
    codec: the codec's, of decoded audio.
  """

  real: Callable[[Array], Array]
  fake: Callable[[Array], Array]
  codec: Callable[[Array], Array]


def _above(x):
  return jax.nn.relu(1 - x)


def _below(x):
  return jax.nn.relu(1 + x)


LOSSES = {
    # EnCodec's (Defossez et al. 2022, section 3.4): the codec is content at 1.
    'hinge': Loss(_above, _below, _above),
    # Lim & Ye 2017; audiocraft's: the codec is never content.
    'hinge_linear': Loss(_above, _below, lambda x: -x),
    # LSGAN (Mao et al. 2017), with targets 1 and 0; HiFi-GAN's and DAC's.
    'least_squares': Loss(
        lambda x: jnp.square(1 - x), jnp.square, lambda x: jnp.square(1 - x)
    ),
}


def discriminator_term(
    loss: Loss,
    real: Verdicts,
    fake: Verdicts,
    num_samples: Int[Array, 'B'],
    reduction: Reduction = 'mean',
) -> Term:
  """What the discriminators minimise.

  Args:
    loss: of `LOSSES`.
    real: verdicts of real audio.
    fake: of decoded audio, through which no gradient must reach the codec.
    num_samples: valid samples of each row.
    reduction: over sub-discriminators.
  """
  rows = [
      r.logits.apply(loss.real).row_means()
      + f.logits.apply(loss.fake).row_means()
      for r, f in zip(real, fake, strict=True)
  ]
  return _term(rows, [r.logits.counts for r in real], num_samples, reduction)


def codec_term(
    loss: Loss,
    fake: Verdicts,
    num_samples: Int[Array, 'B'],
    reduction: Reduction = 'mean',
) -> Term:
  """What the codec minimises: its audio is to be judged real."""
  rows = [f.logits.apply(loss.codec).row_means() for f in fake]
  return _term(rows, [f.logits.counts for f in fake], num_samples, reduction)


def feature_term(
    real: Verdicts,
    fake: Verdicts,
    num_samples: Int[Array, 'B'],
    normalise: bool = False,
    reduction: Reduction = 'mean',
) -> Term:
  """L1 between the features of real and of decoded audio.

  Real features are constants. Over the layers of a sub-discriminator,
  `reduction` is taken as over the sub-discriminators.

  Args:
    real: verdicts of real audio.
    fake: of decoded audio.
    num_samples: valid samples of each row.
    normalise: divide each layer's L1 by the mean magnitude of its real features
      over the whole batch (EnCodec, eq. 5). The term no longer adds over
      microbatches then.
    reduction: 'mean' (EnCodec) or 'sum' (HiFi-GAN, DAC).
  """
  rows = []
  for r, f in zip(real, fake, strict=True):
    layers = []
    for of_real, of_fake in zip(r.features, f.features, strict=True):
      target = jax.lax.stop_gradient(of_real.values)
      error = of_fake.replace(values=jnp.abs(of_fake.values - target))
      factor = 1.0
      if normalise:
        factor = 1 / jnp.maximum(_mean_magnitude(of_real), 1e-5)
      layers.append(factor * error.row_means())
    total = sum(layers)
    rows.append(total / len(layers) if reduction == 'mean' else total)
  return _term(
      rows, [r.features[-1].counts for r in real], num_samples, reduction
  )


def _mean_magnitude(features: discriminators.Map) -> Float[Array, '']:
  values = jax.lax.stop_gradient(features.values)
  size = values[0, 0].size
  count = jnp.sum(features.counts) * size
  return jnp.sum(jnp.abs(values)) / jnp.maximum(count, 1)


def _term(rows, counts, num_samples, reduction) -> Term:
  """Rows [B] of each part -> a term; parts without a position do not count."""
  rows = jnp.stack(rows)
  has = jnp.stack(counts) > 0
  total = jnp.sum(jnp.where(has, rows, 0.0), axis=0)
  if reduction == 'mean':
    total = total / jnp.maximum(jnp.sum(has, axis=0), 1)
  num_samples = jnp.where(jnp.any(has, axis=0), num_samples, 0).astype(
      jnp.float32
  )
  return jnp.sum(num_samples * total), jnp.sum(num_samples)
