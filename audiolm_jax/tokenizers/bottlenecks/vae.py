"""Continuous latents: a variational bottleneck, and one of fixed noise."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import projections


@dataclasses.dataclass(frozen=True)
class Vae(bottlenecks_base.Bottleneck):
  """A normal distribution a frame (Kingma & Welling 2013, 1312.6114).

  Its standard deviation is softplus + 1e-4, as in stable-audio-tools; the loss
  'kl' is the divergence from the standard normal, in nats a frame (that
  project leaves out the factor 1/2 of it).

  Attributes:
    dimension: E of the latents.
    project: linear maps with bias from and to the encoder's width. Without
      them the encoder gives means, then scales, so its width is 2 E, and the
      decoder takes E.
    kl_weight: default factor of 'kl'.
  """

  dimension: config.Positive = 64
  project: bool = True
  kl_weight: config.NonNegative = 1e-4

  @property
  def loss_weights(self):
    return {'kl': self.kl_weight}

  @property
  def quantiser(self):
    return 'none'

  def slots(self):
    return ()

  def latent_dimension(self):
    return self.dimension

  def output_dimension(self, dimension):
    return dimension if self.project else self.dimension

  def init(self, rng, dimension):
    params = projections.around(
        rng, dimension, self.dimension, self.project, given=2
    )
    return {'params': params, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del levels  # There are none.
    params = nn.meta.unbox(variables['params'])
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    if self.project:
      x = projections.apply(params['in'], x)
    mean, scale = jnp.split(x, 2, axis=-1)
    scale = jax.nn.softplus(scale) + 1e-4
    variance = jnp.square(scale)
    # Kingma & Welling, appendix B.
    kl = 0.5 * jnp.square(mean) + 0.5 * (variance - 1) - jnp.log(scale)
    tokens = mean
    if rng is not None:
      tokens = mean + scale * jax.random.normal(rng, mean.shape)
    tokens = jnp.where(mask[..., None], tokens, 0.0)
    latents = self.dequantise(variables, tokens)
    return bottlenecks_base.Quantised(
        latents=jnp.where(mask[..., None], latents, 0.0),
        losses={'kl': jnp.where(mask, kl.sum(axis=-1), 0.0)},
        tokens=tokens,
    )

  def dequantise(self, variables, tokens):
    params = nn.meta.unbox(variables['params'])
    return projections.apply(params['out'], tokens) if self.project else tokens


@dataclasses.dataclass(frozen=True)
class SigmaVae(bottlenecks_base.Bottleneck):
  """Latents with noise whose scale is not learned (2412.08635, section 2.2).

  Without a learned scale they cannot collapse, which suits autoregressive
  models. The loss 'kl' is the part of the divergence from the standard normal
  that depends on the mean, in nats a frame.

  Attributes:
    dimension: E of the latents.
    project: linear maps with bias from and to the encoder's width, which
      otherwise must be E.
    std: of the noise.
    random_scale: each row draws its own standard deviation, normal with
      deviation `std`, as VibeVoice's tokenizer does.
    kl_weight: default factor of 'kl'.
  """

  dimension: config.Positive = 64
  project: bool = True
  std: config.NonNegative = 0.625
  random_scale: bool = True
  kl_weight: config.NonNegative = 1e-4

  @property
  def loss_weights(self):
    return {'kl': self.kl_weight}

  @property
  def quantiser(self):
    return 'none'

  def slots(self):
    return ()

  def latent_dimension(self):
    return self.dimension

  def init(self, rng, dimension):
    params = projections.around(rng, dimension, self.dimension, self.project)
    return {'params': params, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del levels  # There are none.
    params = nn.meta.unbox(variables['params'])
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    mean = projections.apply(params['in'], x) if self.project else x
    kl = 0.5 * jnp.square(mean).sum(axis=-1)
    tokens = mean
    if rng is not None:
      scale_rng, noise_rng = jax.random.split(rng)
      scale = self.std
      if self.random_scale:
        scale *= jax.random.normal(scale_rng, (x.shape[0], 1, 1))
      tokens = mean + scale * jax.random.normal(noise_rng, mean.shape)
    tokens = jnp.where(mask[..., None], tokens, 0.0)
    latents = self.dequantise(variables, tokens)
    return bottlenecks_base.Quantised(
        latents=jnp.where(mask[..., None], latents, 0.0),
        losses={'kl': jnp.where(mask, kl, 0.0)},
        tokens=tokens,
    )

  def dequantise(self, variables, tokens):
    params = nn.meta.unbox(variables['params'])
    return projections.apply(params['out'], tokens) if self.project else tokens
