"""Residual quantisation at several rates (SNAC, Siuzdak et al. 2024, 2410.14411).

A level with stride s quantises averages over s frames of what the levels before
left over, and its output is held for s frames. A token frame is as long as the
largest stride, so a level has several codes in it, each a slot with its time.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import factorised
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import vq


@dataclasses.dataclass(frozen=True)
class MultiRateRvq(bottlenecks_base.Bottleneck):
  """SNAC's quantiser; its weights fit in exactly.

  The codes of a token frame are ordered by codebook, then by time. Where the
  valid frames end within a token frame, it is filled up with zeros. Losses are
  sums over the levels in use; a code's loss stands at each of its frames.

  Attributes:
    strides: frames that a code of each level covers; all divide the largest.
    vocabulary: V.
    dimension: width of the codes.
    weight_norm: whether the maps keep direction and gain apart.
    normalize: look codes up by direction.
    dropout: share of rows that use only their first n codebooks, n uniform.
    multiple: a token frame's frames are a multiple of this, where an encoder or
      decoder takes whole windows of frames.
    commitment_weight: default factor of the encoder's distance to its codes.
    codebook_weight: default factor of the codes' distance to the encoder.
  """

  strides: config.Sizes = (8, 4, 2, 1)
  vocabulary: config.Positive = 4096
  dimension: config.Positive = 8
  weight_norm: bool = True
  normalize: bool = True
  dropout: config.Share = 0.0
  multiple: config.Positive = 1
  commitment_weight: config.NonNegative = 0.25
  codebook_weight: config.NonNegative = 1.0

  def __post_init__(self):
    longest = max(self.strides, default=1)
    if not self.strides or any(longest % s for s in self.strides):
      raise config.ConfigError(
          f'strides = {self.strides}: expected some that divide the largest'
      )

  @property
  def frames(self):
    return math.lcm(max(self.strides, default=1), self.multiple)

  @property
  def loss_weights(self):
    return {
        'commitment': self.commitment_weight,
        'codebook': self.codebook_weight,
    }

  @property
  def quantiser(self):
    return 'MSRVQ'

  def slots(self):
    return tuple(
        tokenizers_base.Slot(
            codebook=k, vocabulary=self.vocabulary, offset=i / self.frames
        )
        for k, stride in enumerate(self.strides)
        for i in range(0, self.frames, stride)
    )

  def prefixes(self):
    counts, total = [], 0
    for stride in self.strides:
      total += self.frames // stride
      counts.append(total)
    return tuple(counts)

  def init(self, rng, dimension):
    maps_rng, book_rng = jax.random.split(rng)
    levels = len(self.strides)
    params = factorised.init_maps(
        maps_rng, levels, dimension, self.dimension, self.weight_norm
    )
    params['codebooks'] = factorised.init_codebooks(
        book_rng, levels, self.vocabulary, self.dimension
    )
    return {'params': params, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del rng  # Deterministic.
    maps, books = self._levels(variables)
    batch, length, _ = x.shape
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    x = jnp.pad(x, ((0, 0), (0, -length % self.frames), (0, 0)))
    count = x.shape[1] // self.frames
    # A token frame is valid if its first frame is: masks are prefixes.
    valid = mask[:, :: self.frames, None]
    residual, total = x, jnp.zeros_like(x)
    losses = dict.fromkeys(self.loss_weights, jnp.zeros(mask.shape))
    codes, margins, first = [], [], None
    for k, stride in enumerate(self.strides):
      chosen = factorised.choose(
          maps[k], books[k], _pool(residual, stride), self.normalize
      )
      held = jnp.repeat(chosen.output, stride, axis=1)
      used = mask if levels is None else mask & (k < levels)[:, None]
      grown = held if levels is None else held * (k < levels)[:, None, None]
      for name in losses:
        loss = jnp.repeat(getattr(chosen, name), stride, axis=1)[:, :length]
        losses[name] = losses[name] + jnp.where(used, loss, 0.0)
      first = held if k == 0 else first
      total, residual = total + grown, residual - held
      shape = (batch, count, self.frames // stride)
      codes.append(jnp.where(valid, chosen.codes.reshape(shape), 0))
      margins.append(jnp.where(valid, chosen.margins.reshape(shape), 1.0))
    return bottlenecks_base.Quantised(
        latents=jnp.where(mask[..., None], total[:, :length], 0.0),
        losses=losses,
        codes=jnp.concatenate(codes, axis=-1),
        margins=jnp.concatenate(margins, axis=-1),
        semantic=jnp.where(mask[..., None], first[:, :length], 0.0),
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    maps, books = self._levels(variables)
    total, start = 0.0, 0
    for k, stop in enumerate(self.prefixes()):
      if stop > tokens.shape[-1]:
        break
      codes = tokens[..., start:stop].reshape(tokens.shape[0], -1)
      vectors = jnp.take(books[k], codes, axis=0)
      output = projections.apply(maps[k]['out'], vectors)
      total = total + jnp.repeat(output, self.strides[k], axis=1)
      start = stop
    return total

  def levels(self, rng, rows):
    return vq.dropout_levels(rng, rows, len(self.strides), self.dropout)

  def code_vectors(self, variables):
    """[K, V, E], one for each slot: those of its codebook."""
    _, books = self._levels(variables)
    return jnp.stack([books[slot.codebook] for slot in self.slots()])

  def _levels(self, variables):
    maps = factorised.maps_of(variables)
    books = ops.materialize(nn.meta.unbox(variables['params'])['codebooks'])
    levels = range(len(self.strides))
    return [factorised.at_level(maps, k) for k in levels], books


def _pool(x, stride):
  """Averages over every `stride` frames, of which there is a multiple."""
  batch, length, width = x.shape
  return x.reshape(batch, length // stride, stride, width).mean(axis=2)
