"""What objectives of models of latents share: what they take of the data."""

import dataclasses
import math
from typing import Annotated, Any, Self

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import token_cache
from audiolm_jax.models import kinds
from audiolm_jax.objectives import base as objectives_base


@dataclasses.dataclass(frozen=True)
class OfLatents(objectives_base.Objective):
  """An objective of one model of latents, 'lm'.

  Attributes:
    decoder: the model.
    frames: of training's rows; None for the data's.
    rate: frames a second; None for the data's.
  """

  decoder: Any
  frames: config.Positive | None = None
  rate: Annotated[float | None, config.Range(min=1e-3, max=1e9)] = None

  def with_data(self, source: Any, read: bool) -> Self:
    key = 'config.objective'
    frames = objectives_base.row_length(
        'frames', self.frames, source, f'{key}.frames'
    )
    rate, decoder = self.rate, self.decoder
    if read and hasattr(source, 'cache'):
      header = token_cache.read_header(source.cache)
      spec, where = header.spec, f'config.data.cache = {source.cache!r}'
      decoder.check_spec(spec, where)
      for name in ('durations', 'scales'):
        if getattr(header, name):
          raise config.ConfigError(
              f'{where} has {name} beside its latents, without which they are'
              ' not what was encoded, and this model has no place for them.'
          )
      theirs = spec.frame_rate
      moments = token_cache.latent_moments(source.cache)
      rate = theirs if rate is None else rate
      if not math.isclose(rate, theirs, rel_tol=1e-3):
        raise config.ConfigError(
            f'{key}.rate = {rate:g}, but config.data has {theirs:g} a second:'
            ' leave it to the data, or give the same.'
        )
      if decoder.moments not in (None, moments):
        raise config.ConfigError(
            f'{key}.decoder.moments are not those of config.data.cache ='
            f' {source.cache!r}, by which its rows are normalised: leave them to'
            ' the data.'
        )
      decoder = decoder.clone(moments=moments)
    if read:
      config.check_given(key, {'frames': frames, 'rate': rate}, 'config.data')
    return dataclasses.replace(self, decoder=decoder, frames=frames, rate=rate)

  @property
  def conditions(self) -> dict[str, Any]:
    modules = self.decoder.conditions
    return {name: module.source for name, module in modules.items()}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    config.check_given(
        'config.objective', {'frames': self.frames}, 'config.data'
    )
    return {
        **self.decoder.example_batch(batch_size, self.frames),
        'id': np.zeros(batch_size, np.int32),
    }

  @property
  def model(self) -> tuple[str, kinds.Description]:
    return 'lm', kinds.Description(self.decoder, self.rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_frames'])) / self.rate
