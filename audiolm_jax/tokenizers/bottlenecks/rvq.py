"""Residual vector quantisation with one space for all levels."""

import dataclasses
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import vq
from audiolm_jax.tokenizers.bottlenecks import projections


@dataclasses.dataclass(frozen=True)
class Rvq(bottlenecks_base.Bottleneck):
  """Each level quantises what the levels before it left (2107.03312).

  Losses: 'commitment', and 'codebook' if the codebooks are learned; both are
  means over the levels in use, in the space of the codebooks.

  Attributes:
    codebooks: K.
    vocabulary: V.
    dimension: width of the codebooks, with a linear map without bias on each
      side; default the encoder's width, without maps.
    decay: of the codebooks' averages, an optimizer step.
    dead_threshold: codes chosen this often, relative to the mean, are replaced
      by vectors from the data.
    check_every: updates between replacements.
    dropout: share of rows that use only their first n codebooks, n uniform, so
      that prefixes of the codes decode too.
    normalize: look codes up by direction; their length still counts.
    learned: codebooks are params, trained by the gradient of the codebook loss,
      instead of following averages.
    initial: how a codebook comes into use: filled with vectors from the data,
      or with their k-means.
    iterations: of k-means.
    candidates: vectors from the data that are collected at each step for dead
      codes and k-means, for each codebook.
    commitment_weight: default factor of the encoder's distance to its codes.
    codebook_weight: default factor of the codes' distance to the encoder.
    use_bias: whether the maps have biases, as those of a `Vae` have, whose means
      codebooks may be fitted to (tools/fit_codes.py).
  """

  codebooks: config.Positive = 8
  vocabulary: config.Positive = 1024
  dimension: config.Positive | None = None
  decay: config.Share = 0.95
  dead_threshold: config.NonNegative = 0.1
  check_every: config.Positive = 1
  dropout: config.Share = 0.25
  normalize: bool = False
  learned: bool = False
  initial: Literal['data', 'k_means'] = 'data'
  iterations: config.Positive = 50
  candidates: config.Positive = vq.CANDIDATES
  commitment_weight: config.NonNegative = 0.5
  codebook_weight: config.NonNegative = 1.0
  use_bias: Annotated[bool, config.Added()] = False

  def __post_init__(self):
    check_candidates(self)
    if self.use_bias and self.dimension is None:
      raise config.ConfigError(
          'use_bias = True does nothing without maps: give a dimension'
      )

  @property
  def loss_weights(self):
    weights = {'commitment': self.commitment_weight}
    if self.learned:
      weights['codebook'] = self.codebook_weight
    return weights

  @property
  def quantiser(self):
    return 'RVQ' if self.codebooks > 1 else 'SVQ'

  def slots(self):
    return tuple(
        tokenizers_base.Slot(codebook=k, vocabulary=self.vocabulary)
        for k in range(self.codebooks)
    )

  def prefixes(self):
    return tuple(range(1, self.codebooks + 1))

  def init(self, rng, dimension):
    in_rng, out_rng, book_rng = jax.random.split(rng, 3)
    width = self.dimension or dimension
    params = {}
    if self.dimension is not None:
      bias = {'use_bias': self.use_bias}
      params['in'] = projections.init(in_rng, dimension, width, **bias)
      params['out'] = projections.init(out_rng, width, dimension, **bias)
    if not self.learned:
      state = vq.init(self.codebooks, self.vocabulary, width)
      return {'params': params, 'state': state}
    shape = (self.codebooks, self.vocabulary, width)
    params['codebooks'] = nn.LogicallyPartitioned(
        jax.random.normal(book_rng, shape), ('layers', None, None)
    )
    return {'params': params, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del rng  # Deterministic.
    params = nn.meta.unbox(variables['params'])
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    if 'in' in params:
      x = projections.apply(params['in'], x)
    quantised = vq.quantise(
        self.code_vectors(variables), x, mask, levels, self.normalize
    )
    if 'out' in params:

      def out(latents):
        y = projections.apply(params['out'], latents)
        # Without a bias, masked frames are zero already.
        return jnp.where(mask[..., None], y, 0.0) if self.use_bias else y

      quantised = quantised.replace(
          latents=out(quantised.latents), semantic=out(quantised.semantic)
      )
    losses = {name: quantised.losses[name] for name in self.loss_weights}
    return quantised.replace(
        losses=losses,
        residuals=jax.lax.stop_gradient(quantised.residuals),
    )

  def dequantise(self, variables, tokens):
    params = nn.meta.unbox(variables['params'])
    self.check_prefix(tokens)
    x = vq.dequantise(self.code_vectors(variables), tokens)
    return projections.apply(params['out'], x) if 'out' in params else x

  def levels(self, rng, rows):
    return vq.dropout_levels(rng, rows, self.codebooks, self.dropout)

  def statistics(self, quantised, mask, rng):
    if self.learned:
      return {}
    return vq.statistics(quantised, mask, self.vocabulary, rng, self.candidates)

  def update(self, state, statistics, rng):
    if self.learned:
      return state
    return vq.update(state, statistics, rng, ema_of(self))

  def metrics(self, state):
    return {} if self.learned else vq.average_metrics(state.counts)

  def code_vectors(self, variables):
    if not self.learned:
      return variables['state'].codebooks
    # Small, and needed whole for the distances.
    return ops.materialize(nn.meta.unbox(variables['params'])['codebooks'])


def ema_of(bottleneck) -> vq.Ema:
  """How the codebooks of a config with `Rvq`'s fields follow the data."""
  k_means = bottleneck.initial == 'k_means'
  return vq.Ema(
      decay=bottleneck.decay,
      dead=bottleneck.dead_threshold,
      check_every=bottleneck.check_every,
      iterations=bottleneck.iterations if k_means else 0,
      normalize=bottleneck.normalize,
  )


def check_candidates(bottleneck):
  """Raises ConfigError if k-means would have fewer points than centroids."""
  if (
      bottleneck.initial == 'k_means'
      and bottleneck.candidates < bottleneck.vocabulary
  ):
    raise config.ConfigError(
        f'candidates = {bottleneck.candidates}: k-means needs at least'
        f' vocabulary = {bottleneck.vocabulary}'
    )
