"""What decoders of frames of latents share: what their batches hold."""

from collections.abc import Mapping
import types
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.backbones import mlps
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioned
from audiolm_jax.tokenizers import base as tokenizers_base

# Latents, num_frames, conditions.
Inputs = tuple[Any, Any, Any]


class OfLatents(conditioned.Conditioned):
  """A decoder with `dimension`, and `moments` of the latents it sees normalised."""

  def __post_init__(self):
    moments = self.moments
    if moments is not None and len(moments.mean) != self.dimension:
      raise config.ConfigError(
          f'decoder.moments of {len(moments.mean)} dimensions, but'
          f' decoder.dimension = {self.dimension}'
      )
    if isinstance(getattr(self.backbone, 'mlp', None), mlps.Moe):
      raise config.ConfigError(
          'decoder.backbone.mlp has experts, whose losses a decoder of latents'
          ' has no place for'
      )
    super().__post_init__()

  # Its loss is no likelihood, and nothing in its batches has one.
  tag = 'none'
  streams = types.MappingProxyType({})

  @nn.nowrap
  def check_spec(self, spec: tokenizers_base.Spec, where: str) -> None:
    """Refuses a tokenizer's tokens that are not such latents.

    Args:
      spec: of the tokenizer.
      where: its tokens are, for the message.

    Raises:
      ConfigError: if they are codes, or latents of another dimension.
    """
    if spec.dimension != self.dimension:
      found = f'codes of the vocabularies {spec.vocabularies}'
      if spec.dimension is not None:
        found = f'latents of {spec.dimension} dimensions'
      raise config.ConfigError(
          f'config.objective.decoder.dimension = {self.dimension}, but {where}'
          f' has {found}.'
      )

  @nn.nowrap
  def normalised(
      self, latents: Float[np.ndarray, '*b D']
  ) -> Float[np.ndarray, '*b D']:
    """Latents of a tokenizer as the decoder sees them."""
    return self.moments.normalised(latents) if self.moments else latents

  @nn.nowrap
  def restored(
      self, normalised: Float[np.ndarray, '*b D']
  ) -> Float[np.ndarray, '*b D']:
    """The inverse of `normalised`, up to rounding."""
    return self.moments.restored(normalised) if self.moments else normalised

  @nn.nowrap
  def example_batch(
      self, batch_size: int, frames: int
  ) -> dict[str, np.ndarray]:
    """A batch of zeros.

    Args:
      batch_size: B.
      frames: of a row.
    """
    shape = batch_size, frames, self.dimension
    return {
        'latents': np.zeros(shape, np.float32),
        'num_frames': np.zeros(batch_size, np.int32),
        'ends': np.zeros(batch_size, bool),
        **self._no_conditions(batch_size),
    }

  @nn.nowrap
  def read(self, batch: Mapping[str, Array]) -> Inputs:
    """(latents, num_frames, conditions) of a batch."""
    conditions = factors.unflatten(batch, sorted(self.conditions))
    return batch['latents'], batch['num_frames'], conditions
