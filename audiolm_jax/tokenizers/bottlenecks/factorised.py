"""Residual quantisation where each level looks codes up in its own small space.

After DAC (Kumar et al. 2023, 2306.06546, section 3.2) and ViT-VQGAN (Yu et al.
2021, 2110.04627): a linear map takes the residual to a few dimensions, the code
nearest in direction is chosen, and the code, at its own length, is mapped back.
"""

import dataclasses
from typing import Any, Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import vq


class Chosen(flax.struct.PyTreeNode):
  """What one level makes of its input; no frame is masked.

  Attributes:
    codes: the codes.
    margins: of their choice.
    output: mapped back, straight through to the input.
    commitment: mean square of (input - code) in the small space, with a
      gradient to the input.
    codebook: the same, with a gradient to the code.
    projected: the input in the small space, without a gradient.
  """

  codes: Int[Array, 'B F']
  margins: Float[Array, 'B F']
  output: Float[Array, 'B F D']
  commitment: Float[Array, 'B F']
  codebook: Float[Array, 'B F']
  projected: Float[Array, 'B F E']


def choose(
    maps: dict[str, Any],
    codebook: Float[Array, 'V E'],
    x: Float[Array, 'B F D'],
    normalize: bool,
) -> Chosen:
  """One level; `maps` are its projections 'in' and 'out'."""
  projected = projections.apply(maps['in'], x)
  codes, margins = vq.nearest(codebook, projected, normalize)
  vectors = jnp.take(codebook, codes, axis=0)
  constant = jax.lax.stop_gradient(projected)
  chosen = jax.lax.stop_gradient(vectors)
  return Chosen(
      codes=codes,
      margins=margins,
      output=projections.apply(maps['out'], projected + (chosen - constant)),
      commitment=jnp.square(projected - chosen).mean(axis=-1),
      codebook=jnp.square(vectors - constant).mean(axis=-1),
      projected=constant,
  )


@dataclasses.dataclass(frozen=True)
class FactorisedRvq(bottlenecks_base.Bottleneck):
  """DAC's quantiser; its weights fit in exactly.

  Losses: 'commitment', and 'codebook' if the codebooks are learned: sums over
  the levels in use, as DAC adds them up. Gradients pass through the residuals
  to the maps of the levels before, as there.

  Attributes:
    codebooks: K.
    vocabulary: V.
    dimension: width of the codes.
    weight_norm: whether the maps keep direction and gain apart.
    normalize: look codes up by direction.
    dropout: share of rows that use only their first n codebooks, n uniform.
    learned: codebooks are params, trained by the gradient of the codebook loss;
      otherwise they follow averages, which the next six fields describe.
    decay: of the codebooks' averages, an optimizer step.
    dead_threshold: codes chosen this often, relative to the mean, are replaced.
    check_every: updates between replacements.
    initial: codebooks are first filled from the data, or with its k-means.
    iterations: of k-means.
    candidates: vectors from the data collected at each step.
    commitment_weight: default factor of the encoder's distance to its codes.
    codebook_weight: default factor of the codes' distance to the encoder.
  """

  codebooks: config.Positive = 9
  vocabulary: config.Positive = 1024
  dimension: config.Positive = 8
  weight_norm: bool = True
  normalize: bool = True
  dropout: config.Share = 0.5
  learned: bool = True
  decay: config.Share = 0.99
  dead_threshold: config.NonNegative = 0.1
  check_every: config.Positive = 1
  initial: Literal['data', 'k_means'] = 'data'
  iterations: config.Positive = 50
  candidates: config.Positive = vq.CANDIDATES
  commitment_weight: config.NonNegative = 0.25
  codebook_weight: config.NonNegative = 1.0

  def __post_init__(self):
    rvq.check_candidates(self)

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
    maps_rng, book_rng = jax.random.split(rng)
    params = init_maps(
        maps_rng, self.codebooks, dimension, self.dimension, self.weight_norm
    )
    if not self.learned:
      state = vq.init(self.codebooks, self.vocabulary, self.dimension)
      return {'params': params, 'state': state}
    params['codebooks'] = init_codebooks(
        book_rng, self.codebooks, self.vocabulary, self.dimension
    )
    return {'params': params, 'state': {}}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del rng  # Deterministic.
    maps = maps_of(variables)
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)

    def level(carry, inputs):
      residual, total = carry
      k, maps, codebook = inputs
      chosen = choose(maps, codebook, residual, self.normalize)
      used = mask if levels is None else mask & (k < levels)[:, None]
      total = total + jnp.where(used[..., None], chosen.output, 0.0)
      chosen = chosen.replace(
          codes=jnp.where(mask, chosen.codes, 0),
          margins=jnp.where(mask, chosen.margins, 1.0),
          commitment=jnp.where(used, chosen.commitment, 0.0),
          codebook=jnp.where(used, chosen.codebook, 0.0),
      )
      return (residual - chosen.output, total), chosen.replace(output=None)

    books = self.code_vectors(variables)
    inputs = (jnp.arange(self.codebooks), maps, books)
    (_, total), out = jax.lax.scan(level, (x, jnp.zeros_like(x)), inputs)
    first = choose(at_level(maps, 0), books[0], x, self.normalize).output
    return bottlenecks_base.Quantised(
        latents=total,
        losses={
            name: getattr(out, name).sum(axis=0) for name in self.loss_weights
        },
        codes=jnp.moveaxis(out.codes, 0, -1),
        margins=jnp.moveaxis(out.margins, 0, -1),
        semantic=jnp.where(mask[..., None], first, 0.0),
        residuals=out.projected,
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    maps, books = maps_of(variables), self.code_vectors(variables)
    return sum(
        projections.apply(
            at_level(maps, k)['out'], jnp.take(books[k], tokens[..., k], axis=0)
        )
        for k in range(tokens.shape[-1])
    )

  def levels(self, rng, rows):
    return vq.dropout_levels(rng, rows, self.codebooks, self.dropout)

  def statistics(self, quantised, mask, rng):
    if self.learned:
      return {}
    return vq.statistics(quantised, mask, self.vocabulary, rng, self.candidates)

  def update(self, state, statistics, rng):
    if self.learned:
      return state
    return vq.update(state, statistics, rng, rvq.ema_of(self))

  def metrics(self, state):
    return {} if self.learned else vq.average_metrics(state.counts)

  def code_vectors(self, variables):
    if not self.learned:
      return variables['state'].codebooks
    return ops.materialize(nn.meta.unbox(variables['params'])['codebooks'])


def init_maps(
    rng: Array, levels: int, dimension: int, width: int, weight_norm: bool
) -> dict[str, Any]:
  """Boxed projections 'in' [levels, D, E] and 'out' [levels, E, D], biased."""
  in_rng, out_rng = jax.random.split(rng)
  options = {'use_bias': True, 'weight_norm': weight_norm, 'levels': levels}
  return {
      'in': projections.init(in_rng, dimension, width, **options),
      'out': projections.init(out_rng, width, dimension, **options),
  }


def init_codebooks(rng: Array, levels: int, vocabulary: int, width: int):
  """Boxed codebooks [levels, V, E] of unit variance."""
  return nn.LogicallyPartitioned(
      jax.random.normal(rng, (levels, vocabulary, width)),
      ('layers', None, None),
  )


def maps_of(variables: bottlenecks_base.Variables) -> dict[str, Any]:
  """The projections of all levels, unboxed."""
  params = nn.meta.unbox(variables['params'])
  return {name: params[name] for name in ('in', 'out')}


def at_level(maps: Any, level: int) -> Any:
  """The projections of one level."""
  return jax.tree.map(lambda leaf: leaf[level], maps)
