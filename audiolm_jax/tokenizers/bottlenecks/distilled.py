"""Residual vector quantisation that keeps its map to a teacher's features."""

import dataclasses

import flax.linen as nn
import jax

from audiolm_jax import config
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import rvq


@dataclasses.dataclass(frozen=True)
class DistilledRvq(rvq.Rvq):
  """`Rvq` with a linear map of its first level to a teacher's features.

  SpeechTokenizer publishes it ('transform'; Zhang et al. 2023, 2308.16692,
  section 3.2): `Quantised.semantic` then is what the first codes say of HuBERT.

  Attributes:
    features: width of the teacher's features.
  """

  features: config.Positive = 768

  def semantic_dimension(self, dimension):
    return self.features

  def init(self, rng, dimension):
    rng, semantic_rng = jax.random.split(rng)
    variables = super().init(rng, dimension)
    semantic = projections.init(
        semantic_rng, dimension, self.features, use_bias=True
    )
    params = {**variables['params'], 'semantic': semantic}
    return {**variables, 'params': params}

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    quantised = super().quantise(variables, x, mask, levels=levels, rng=rng)
    params = nn.meta.unbox(variables['params']['semantic'])
    semantic = projections.apply(params, quantised.semantic)
    return quantised.replace(semantic=semantic * mask[..., None])
