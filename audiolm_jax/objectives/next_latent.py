"""What a head over single frames of latents is trained by."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import of_latents
from audiolm_jax.processes import noise as noise_lib


@dataclasses.dataclass(frozen=True)
class NextLatent(of_latents.OfLatents):
  """The losses of a decoder's head, and of where rows end.

  One model, 'lm'. The term 'nll' of a mixture is in nats a frame; those of other
  heads are no likelihoods, and never compared with it.

  Attributes:
    decoder: the model.
    frames: of training's rows; None for the data's.
    rate: frames a second; None for the data's.
    stop_weight: of the nats a frame of where rows end, beside the head's terms;
      None is 0.1 (Kyutai's), for a decoder that says where.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LATENT_KINDS)]
  stop_weight: config.NonNegative | None = None

  def __post_init__(self):
    if self.stop_weight is not None and not self.decoder.stop:
      raise config.ConfigError(
          f'config.objective.stop_weight = {self.stop_weight} does nothing:'
          ' config.objective.decoder.stop = False.'
      )

  @property
  def loss_weights(self) -> dict[str, float]:
    weights = dict(self.decoder.loss_weights)
    if self.decoder.stop:
      weights['stop'] = 0.1 if self.stop_weight is None else self.stop_weight
    return weights

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    rng, dropout, dropped = jax.random.split(rng, 3)
    latents, num_frames, conditions = self.decoder.read(batch)
    losses = self.decoder.apply(
        {'params': variables['lm']['params']},
        latents,
        num_frames,
        batch['ends'],
        noise_lib.row_keys(rng, jnp.arange(len(latents))),
        conditions=conditions,
        rngs={'dropout': dropout, 'conditions': dropped},
        method='losses',
    )
    count = jnp.sum(num_frames).astype(jnp.float32)
    terms = {name: (jnp.sum(loss), count) for name, loss in losses.items()}
    return objectives_base.Output(terms=terms)
