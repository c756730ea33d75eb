"""The error of what denoises latents, over noise levels."""

import dataclasses
import math
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.data import token_cache
from audiolm_jax.models import kinds
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights
from audiolm_jax.streaming import base as streaming_base

# What the keys of rows are folded with.
_NOISE, _GAPS = 0, 1


class Draws(flax.struct.PyTreeNode):
  """What a step draws for each row.

  Attributes:
    t: times.
    e: noise, of the latents' shape.
    hidden: frames that are not given, within the rows' lengths.
  """

  t: Float[Array, 'B']
  e: Float[Array, 'B F D']
  hidden: Bool[Array, 'B F']


@dataclasses.dataclass(frozen=True)
class Denoising(objectives_base.Objective):
  """Squared errors of what is predicted of noisy latents, where hidden.

  One model, 'lm'. Its error is no likelihood and never compared with nats;
  `weights.effective` says when two such losses are of one objective.

  Attributes:
    decoder: the model.
    density: of the times to train at; those of a (micro)batch are stratified.
    weight: of the error at each time.
    frames: of training's rows; None for the data's.
    rate: frames a second; None for the data's.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.DENOISERS)]
  density: Annotated[Any, config.Kind(lambda: times_lib.DENSITIES)] = (
      times_lib.Uniform()
  )
  weight: Annotated[Any, config.Kind(lambda: weights.WEIGHTS)] = weights.Plain()
  frames: config.Positive | None = None
  rate: Annotated[float | None, config.Range(min=1e-3, max=1e9)] = None

  def with_data(self, source: Any, read: bool) -> 'Denoising':
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
  def loss_weights(self) -> dict[str, float]:
    return {'denoising': 1.0}

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

  def draw(
      self, rng: Array, latents: Float[Array, 'B F D'], num_frames: Any
  ) -> Draws:
    """Times, noise and gaps for the rows of a batch."""
    batch, count, _ = latents.shape
    row_rng, time_rng = jax.random.split(rng)
    keys = noise_lib.row_keys(row_rng, jnp.arange(batch))
    e = noise_lib.normal(noise_lib.fold(keys, _NOISE), latents.shape[1:])
    hidden = streaming_base.length_mask(num_frames, count)
    if self.decoder.gaps is not None:
      gap_keys = noise_lib.fold(keys, _GAPS)
      hidden = self.decoder.gaps.draw(gap_keys, num_frames, count)
    uniforms = times_lib.stratified(time_rng, batch)
    t = self.density.quantile(self.decoder.process, uniforms)
    return Draws(t, e.astype(latents.dtype), hidden)

  def errors(
      self,
      params: Any,
      batch: objectives_base.Batch,
      draws: Draws,
      rngs: dict[str, Array] | None = None,
  ) -> Float[Array, 'B F']:
    """Weighted squared errors, mean over dimensions; 0 where not hidden.

    Args:
      params: of the decoder.
      batch: whose rows these are.
      draws: of the same rows.
      rngs: streams 'dropout' and 'conditions'; None drops nothing.
    """
    decoder, (x, num_frames, conditions) = (
        self.decoder,
        self.decoder.read(batch),
    )
    process, t, e = decoder.process, draws.t, draws.e
    exists = streaming_base.length_mask(num_frames, x.shape[1])
    x = streaming_base.zero_masked(x, exists)
    infilling = {}
    if decoder.gaps is not None:
      infilling = {'given': x, 'hidden': draws.hidden}
    output = decoder.apply(
        {'params': params},
        process.corrupt(x, e, t),
        t,
        num_frames,
        conditions=conditions,
        rngs=rngs,
        method='predict',
        **infilling,
    )
    target = process.target(decoder.target, x, e, t)
    error = jnp.mean((output - target) ** 2, axis=-1)
    weight = self.weight.factor(process, decoder.target, t)
    return jnp.where(draws.hidden, weight[:, None] * error, 0)

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    rng, dropout, dropped = jax.random.split(rng, 3)
    latents, num_frames, _ = self.decoder.read(batch)
    draws = self.draw(rng, latents, num_frames)
    errors = self.errors(
        variables['lm']['params'],
        batch,
        draws,
        {'dropout': dropout, 'conditions': dropped},
    )
    count = jnp.sum(draws.hidden).astype(jnp.float32)
    return objectives_base.Output(
        terms={'denoising': (jnp.sum(errors), count)},
        metrics={'hidden': (count, jnp.sum(num_frames).astype(jnp.float32))},
    )

  @property
  def model(self) -> tuple[str, kinds.Description]:
    return 'lm', kinds.Description(self.decoder, self.rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_frames'])) / self.rate
