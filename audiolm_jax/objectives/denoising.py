"""The error of what denoises latents, over noise levels."""

import dataclasses
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import of_latents
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
class Denoising(of_latents.OfLatents):
  """Squared errors of what is predicted of noisy latents, where hidden.

  One model, 'lm'. Its error is no likelihood and never compared with nats;
  `weights.effective` says when two such losses are of one objective.

  Attributes:
    decoder: the model.
    frames: of training's rows; None for the data's.
    rate: frames a second; None for the data's.
    density: of the times to train at; those of a (micro)batch are stratified.
    weight: of the error at each time.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.DENOISERS)]
  density: Annotated[Any, config.Kind(lambda: times_lib.DENSITIES)] = (
      times_lib.Uniform()
  )
  weight: Annotated[Any, config.Kind(lambda: weights.WEIGHTS)] = weights.Plain()

  @property
  def loss_weights(self) -> dict[str, float]:
    return {'denoising': 1.0}

  def draw(
      self, rng: Array, latents: Float[Array, 'B F D'], num_frames: Any
  ) -> Draws:
    """Times, noise and gaps for the rows of a batch."""
    row_rng, time_rng = jax.random.split(rng)
    uniforms = times_lib.stratified(time_rng, len(latents))
    t = self.density.quantile(self.decoder.process, uniforms)
    return Draws(t, *self._noise_and_gaps(row_rng, latents, num_frames))

  def _noise_and_gaps(self, rng, latents, num_frames):
    """`e` and `hidden` of `Draws`."""
    batch, count, _ = latents.shape
    keys = noise_lib.row_keys(rng, jnp.arange(batch))
    e = noise_lib.normal(noise_lib.fold(keys, _NOISE), latents.shape[1:])
    hidden = streaming_base.length_mask(num_frames, count)
    if self.decoder.gaps is not None:
      gap_keys = noise_lib.fold(keys, _GAPS)
      hidden = self.decoder.gaps.draw(gap_keys, num_frames, count)
    return e.astype(latents.dtype), hidden

  def _infilling(self, x, hidden):
    """(given, hidden) as `predict` takes them."""
    return (None, None) if self.decoder.gaps is None else (x, hidden)

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
    output = decoder.apply(
        {'params': params},
        process.corrupt(x, e, t),
        t,
        num_frames,
        *self._infilling(x, draws.hidden),
        conditions=conditions,
        rngs=rngs,
        method='predict',
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
