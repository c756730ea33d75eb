"""Semantic and acoustic residual quantisers side by side (Mimi, 2410.00037).

Both quantise the same input, each in a space of its own; their outputs add up.
So the first codebook is free to hold what distillation asks of it: the others
need not correct what it leaves over.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import vq


@dataclasses.dataclass(frozen=True)
class SplitRvq(bottlenecks_base.Bottleneck):
  """Two RVQs in parallel on the same input, outputs summed.

  The loss 'commitment' is the mean over all levels in use.

  Attributes:
    semantic: codebooks of the first; always used.
    acoustic: codebooks of the second.
    vocabulary: V.
    dimension: width of both spaces, with linear maps without bias; default the
      encoder's width, without maps.
    decay: of the codebooks' averages, an optimizer step.
    dead_threshold: codes chosen this often, relative to the mean, are replaced.
    check_every: updates between replacements.
    dropout: share of rows that use only their first n codebooks, n uniform.
    initial: codebooks are first filled from the data, or with its k-means.
    iterations: of k-means.
    candidates: vectors from the data collected at each step.
    commitment_weight: default factor of the encoder's distance to its codes.
  """

  semantic: config.Positive = 1
  acoustic: config.Positive = 31
  vocabulary: config.Positive = 2048
  dimension: config.Positive | None = 256
  decay: config.Share = 0.99
  dead_threshold: config.NonNegative = 0.1
  check_every: config.Positive = 5
  dropout: config.Share = 1.0
  initial: Literal['data', 'k_means'] = 'data'
  iterations: config.Positive = 50
  candidates: config.Positive = vq.CANDIDATES
  commitment_weight: config.NonNegative = 1.0

  def __post_init__(self):
    rvq.check_candidates(self)

  @functools.cached_property
  def parts(self) -> dict[str, rvq.Rvq]:
    """The two, by the names of their variables."""
    shared = {
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(self)
        if field.name not in ('semantic', 'acoustic')
    }
    return {
        name: rvq.Rvq(codebooks=getattr(self, name), **shared)
        for name in ('semantic', 'acoustic')
    }

  @property
  def loss_weights(self):
    return {'commitment': self.commitment_weight}

  @property
  def quantiser(self):
    return 'RVQ'

  def slots(self):
    return tuple(
        tokenizers_base.Slot(codebook=k, vocabulary=self.vocabulary)
        for k in range(self.semantic + self.acoustic)
    )

  def prefixes(self):
    return tuple(range(1, self.semantic + self.acoustic + 1))

  def init(self, rng, dimension):
    rngs = jax.random.split(rng)
    parts = {
        name: part.init(part_rng, dimension)
        for part_rng, (name, part) in zip(rngs, self.parts.items(), strict=True)
    }
    return {
        kind: {name: parts[name][kind] for name in parts}
        for kind in ('params', 'state')
    }

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    semantic_levels = acoustic_levels = None
    if levels is not None:
      semantic_levels = jnp.minimum(levels, self.semantic)
      acoustic_levels = levels - semantic_levels
    semantic, acoustic = (
        part.quantise(_of(variables, name), x, mask, levels=used, rng=rng)
        for (name, part), used in zip(
            self.parts.items(), (semantic_levels, acoustic_levels), strict=True
        )
    )
    latents, commitment = acoustic.latents, acoustic.losses['commitment']
    if levels is None:
      counts = self.semantic, self.acoustic
    else:
      counts = semantic_levels[:, None], acoustic_levels[:, None]
      # A row without acoustic levels sends the second's map no gradient.
      latents = jnp.where(counts[1][..., None] > 0, latents, 0.0)
    commitment = (
        semantic.losses['commitment'] * counts[0] + commitment * counts[1]
    ) / (counts[0] + counts[1])
    return bottlenecks_base.Quantised(
        latents=semantic.latents + latents,
        losses={'commitment': commitment},
        codes=jnp.concatenate([semantic.codes, acoustic.codes], axis=-1),
        margins=jnp.concatenate([semantic.margins, acoustic.margins], axis=-1),
        semantic=semantic.semantic,
        residuals={
            'semantic': semantic.residuals,
            'acoustic': acoustic.residuals,
        },
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    first, rest = self._split(tokens)
    parts = self.parts
    total = parts['semantic'].dequantise(_of(variables, 'semantic'), first)
    if rest.shape[-1] == 0:
      return total
    return total + parts['acoustic'].dequantise(
        _of(variables, 'acoustic'), rest
    )

  def levels(self, rng, rows):
    count = self.semantic + self.acoustic
    return vq.dropout_levels(rng, rows, count, self.dropout)

  def statistics(self, quantised, mask, rng):
    codes = self._split(quantised.codes)
    rngs = jax.random.split(rng)
    return {
        name: part.statistics(
            quantised.replace(codes=c, residuals=quantised.residuals[name]),
            mask,
            part_rng,
        )
        for (name, part), c, part_rng in zip(
            self.parts.items(), codes, rngs, strict=True
        )
    }

  def update(self, state, statistics, rng):
    rngs = jax.random.split(rng)
    return {
        name: part.update(state[name], statistics[name], part_rng)
        for (name, part), part_rng in zip(self.parts.items(), rngs, strict=True)
    }

  def metrics(self, state):
    """As the RVQ's, of all codebooks in one row."""
    counts = [state[name].counts for name in self.parts]
    return vq.average_metrics(jnp.concatenate(counts))

  def code_vectors(self, variables):
    return jnp.concatenate(
        [
            part.code_vectors(_of(variables, name))
            for name, part in self.parts.items()
        ]
    )

  def _split(self, codes):
    return codes[..., : self.semantic], codes[..., self.semantic :]


def _of(variables, name):
  return {kind: tree[name] for kind, tree in variables.items()}
