"""A mixture of normal distributions (GIVT, 2312.02116, section 3.3)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.decoders.latent_heads import base
from audiolm_jax.ops import draws
from audiolm_jax.processes import noise as noise_lib

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Mixture(base.LatentHead):
  """Components with deviations of their own in each dimension.

  Guidance mixes the outputs of the backbone (CALM, 2509.06926). A temperature
  multiplies the variances and divides the logits of the components; at 0 a frame
  is the mean of the likeliest one.

  Attributes:
    components: how many.
    least_std: of a dimension, in units of the latents' deviation.
  """

  components: config.Positive = 16
  least_std: config.NonNegative = 1e-3

  tag = 'exact'

  @property
  def loss_weights(self):
    return {'nll': 1.0}

  @nn.compact
  def parameters(self, h, dimension):
    """(log weights [M, C], means [M, C, L], deviations [M, C, L]), fp32."""
    count, h = self.components, h.astype(jnp.float32)
    axes = 'embed', None
    logits = ops.linear(self, 'weight', h, count, axes, use_bias=True)
    sizes = count * dimension
    # Spread out, or all components would stay one.
    spread = nn.initializers.normal(1.0)
    mean = ops.linear(self, 'mean', h, sizes, axes)
    mean += ops.materialize(
        ops.weight(self, 'mean_bias', spread, (sizes,), (None,))
    )
    raw = ops.linear(self, 'deviation', h, sizes, axes, use_bias=True)
    shape = -1, count, dimension
    # As GIVT's code: positive, 1 at 0, and linear for large values.
    std = (raw + jnp.sqrt(raw**2 + 4)) / 2 + self.least_std
    log_weight = jax.nn.log_softmax(logits, axis=-1)
    return log_weight, mean.reshape(shape), std.reshape(shape)

  def log_prob(self, h, x, steps=None):
    if steps is not None:
      raise ValueError('a mixture takes no steps')
    log_weight, mean, std = self.parameters(h, x.shape[-1])
    score = (x.astype(jnp.float32)[:, None] - mean) / std
    each = -0.5 * score**2 - jnp.log(std) - _HALF_LOG_TWO_PI
    return jax.nn.logsumexp(log_weight + each.sum(-1), axis=-1)

  def losses(self, h, x, keys):
    del keys
    return {'nll': -self.log_prob(h, x)}

  def draw(self, h, keys, dimension, sampler, null=None, guidance=None):
    h = base.mixed(h, null, guidance)
    log_weight, mean, std = self.parameters(h, dimension)
    if sampler.temperature:
      logits = log_weight / sampler.temperature
      chosen = draws.categorical(noise_lib.fold(keys, 0), logits)
    else:
      chosen = jnp.argmax(log_weight, axis=-1)
    mean, std = (
        jnp.take_along_axis(p, chosen[:, None, None], axis=1)[:, 0]
        for p in (mean, std)
    )
    e = noise_lib.normal(noise_lib.fold(keys, 1), (1, dimension))[:, 0]
    return mean + math.sqrt(sampler.temperature) * std * e
