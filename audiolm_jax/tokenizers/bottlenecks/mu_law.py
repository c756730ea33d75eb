"""The waveform itself as tokens (ITU-T G.711; WaveNet, 1609.03499, 2.2)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax.ops import companding
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import vq


@dataclasses.dataclass(frozen=True)
class MuLaw(bottlenecks_base.Bottleneck):
  """Each sample as one of V values, closer to each other where it is quiet.

  Its latents are samples in [-1, 1]; encoder and decoder are to be identities.

  Attributes:
    vocabulary: V = mu + 1.
    channels: of the waveform, a slot each; the encoder's width.
  """

  vocabulary: Annotated[int, config.Range(min=2)] = 256
  channels: config.Positive = 1

  @property
  def loss_weights(self):
    return {}

  @property
  def quantiser(self):
    return 'SVQ'

  def slots(self):
    return tuple(
        tokenizers_base.Slot(codebook=c, vocabulary=self.vocabulary, channel=c)
        for c in range(self.channels)
    )

  def init(self, rng, dimension):
    del rng  # Nothing is learned.
    if dimension != self.channels:
      raise config.ConfigError(
          f'channels = {self.channels}, but the encoder has width {dimension}'
      )
    return {'params': {}, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del levels, rng  # One level, deterministic.
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    constant = jax.lax.stop_gradient(x)
    place = _compress(constant, self.vocabulary)
    codes = jnp.clip(jnp.round(place), 0, self.vocabulary - 1)
    # At the ends the second best lies on the inner side.
    side = jnp.where(place >= codes, 1.0, -1.0)
    side = jnp.where(codes == 0, 1.0, side)
    side = jnp.where(codes == self.vocabulary - 1, -1.0, side)
    margins = vq.margin(jnp.abs(place - codes), jnp.abs(place - codes - side))
    codes = codes.astype(jnp.int32)
    values = jnp.where(mask[..., None], expand(codes, self.vocabulary), 0.0)
    latents = x + jax.lax.stop_gradient(values - x)
    return bottlenecks_base.Quantised(
        latents=latents,
        losses={},
        codes=jnp.where(mask[..., None], codes, 0),
        margins=jnp.where(mask[..., None], margins, 1.0),
        semantic=latents,
    )

  def dequantise(self, variables, tokens):
    del variables
    self.check_prefix(tokens)
    return expand(tokens, self.vocabulary)

  def code_vectors(self, variables):
    del variables
    values = expand(jnp.arange(self.vocabulary), self.vocabulary)
    return jnp.stack([values[:, None]] * self.channels)


def compress(x: Float[Array, '*n'], vocabulary: int) -> Int[Array, '*n']:
  """The codes of samples in [-1, 1]; louder ones are clipped."""
  return jnp.round(_compress(x, vocabulary)).astype(jnp.int32)


def expand(codes: Int[Array, '*n'], vocabulary: int) -> Float[Array, '*n']:
  """The samples that codes stand for."""
  mu = vocabulary - 1
  return companding.expand(2 * codes.astype(jnp.float32) / mu - 1, mu)


def _compress(x, vocabulary):
  """Where samples lie between the codes 0 and mu."""
  mu = vocabulary - 1
  return (companding.compress(jnp.clip(x, -1.0, 1.0), mu) + 1) / 2 * mu
