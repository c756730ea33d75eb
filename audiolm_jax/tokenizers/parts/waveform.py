"""The waveform as it is, for bottlenecks that take samples (mu-law)."""

import dataclasses
import functools

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers.parts import base as parts_base


@dataclasses.dataclass(frozen=True)
class Waveform(parts_base.Part):
  """Audio [B, T, C] <-> latents [B, T, C], the same; encoder and decoder.

  Attributes:
    channels: of the audio.
  """

  channels: config.Positive = 1

  hop = 1
  architecture = 'none'

  @property
  def dimension(self) -> int:
    return self.channels

  @functools.cached_property
  def layer(self) -> streaming.Steppable:
    return streaming.Map(lambda x: x)
