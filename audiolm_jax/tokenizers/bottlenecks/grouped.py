"""Grouped residual quantisation (HiFi-Codec, Yang et al. 2023, 2305.02765)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import vq


@dataclasses.dataclass(frozen=True)
class GroupedRvq(bottlenecks_base.Bottleneck):
  """An RVQ for each of G equal parts of the latent's width.

  Slots go by level, then by group, so that the first n G codes are the first n
  levels. The loss 'commitment' is the mean over levels and groups.

  Attributes:
    groups: G; divides the encoder's width.
    codebooks: levels of each group.
    vocabulary: V.
    decay: of the codebooks' averages, an optimizer step.
    dead_threshold: codes chosen this often, relative to the mean, are replaced.
    check_every: updates between replacements.
    dropout: share of rows that use only their first n levels, n uniform.
    normalize: look codes up by direction.
    initial: codebooks are first filled from the data, or with its k-means.
    iterations: of k-means.
    candidates: vectors from the data collected at each step.
    commitment_weight: default factor of the encoder's distance to its codes.
  """

  groups: config.Positive = 2
  codebooks: config.Positive = 2
  vocabulary: config.Positive = 1024
  decay: config.Share = 0.99
  dead_threshold: config.NonNegative = 0.1
  check_every: config.Positive = 1
  dropout: config.Share = 0.0
  normalize: bool = False
  initial: Literal['data', 'k_means'] = 'data'
  iterations: config.Positive = 50
  candidates: config.Positive = vq.CANDIDATES
  commitment_weight: config.NonNegative = 1.0

  def __post_init__(self):
    rvq.check_candidates(self)

  @property
  def loss_weights(self):
    return {'commitment': self.commitment_weight}

  @property
  def quantiser(self):
    return 'GVQ'

  def slots(self):
    count = self.groups * self.codebooks
    return tuple(
        tokenizers_base.Slot(codebook=k, vocabulary=self.vocabulary)
        for k in range(count)
    )

  def prefixes(self):
    count = self.groups * self.codebooks
    return tuple(range(self.groups, count + 1, self.groups))

  def init(self, rng, dimension):
    del rng  # The data fills the codebooks.
    if dimension % self.groups:
      raise config.ConfigError(
          f'groups = {self.groups} must divide the width {dimension}'
      )
    width = dimension // self.groups
    one = vq.init(self.codebooks, self.vocabulary, width)
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.groups), one)
    return {'params': {}, 'state': state}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del rng  # Deterministic.
    parts = jnp.stack(jnp.split(x, self.groups, axis=-1))
    quantised = jax.vmap(
        lambda books, part: vq.quantise(
            books, part, mask, levels, self.normalize
        )
    )(variables['state'].codebooks, parts)
    return bottlenecks_base.Quantised(
        latents=_join(quantised.latents),
        losses={'commitment': quantised.losses['commitment'].mean(axis=0)},
        codes=_interleave(quantised.codes),
        margins=_interleave(quantised.margins),
        semantic=_join(quantised.semantic),
        residuals=jax.lax.stop_gradient(quantised.residuals),
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    codes = self._separate(tokens)
    return _join(jax.vmap(vq.dequantise)(variables['state'].codebooks, codes))

  def levels(self, rng, rows):
    return vq.dropout_levels(rng, rows, self.codebooks, self.dropout)

  def statistics(self, quantised, mask, rng):
    def group(inputs):
      codes, residuals, rng = inputs
      one = quantised.replace(codes=codes, residuals=residuals)
      return vq.statistics(one, mask, self.vocabulary, rng, self.candidates)

    rngs = jax.random.split(rng, self.groups)
    inputs = (self._separate(quantised.codes), quantised.residuals, rngs)
    return jax.lax.map(group, inputs)

  def update(self, state, statistics, rng):
    # A loop, since under vmap k-means would run at every update.
    rngs = jax.random.split(rng, self.groups)
    return jax.lax.map(
        lambda inputs: vq.update(*inputs, rvq.ema_of(self)),
        (state, statistics, rngs),
    )

  def metrics(self, state):
    return vq.average_metrics(_by_slot(state.counts))

  def code_vectors(self, variables):
    return _by_slot(variables['state'].codebooks)

  def _separate(self, codes):
    """[B, F, n G] -> [G, B, F, n]."""
    return jnp.stack([codes[..., g :: self.groups] for g in range(self.groups)])


def _join(parts):
  """[G, B, F, D / G] -> [B, F, D]."""
  return jnp.concatenate(list(parts), axis=-1)


def _interleave(parts):
  """[G, B, F, n] -> [B, F, n G], by level, then group."""
  stacked = jnp.stack(list(parts), axis=-1)
  return stacked.reshape(*stacked.shape[:-2], -1)


def _by_slot(parts):
  """[G, n, ...] -> [n G, ...], by level, then group."""
  return jnp.swapaxes(parts, 0, 1).reshape(-1, *parts.shape[2:])
