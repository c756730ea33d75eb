"""What the objectives of token decoders share: their terms and metrics."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax.backbones import mlps
from audiolm_jax.decoders import decoder as decoder_lib

Pair = tuple[Float[Array, ''], Float[Array, '']]


def rngs(rng: Array) -> dict[str, Array]:
  """A training step's streams: dropout, steps to train on, conditions to drop."""
  streams = 'frames', 'conditions'
  return {
      'dropout': rng,
      **{k: jax.random.fold_in(rng, 1 + i) for i, k in enumerate(streams)},
  }


def loss_names(backbone: Any) -> tuple[str, ...]:
  """What a backbone adds to the loss: of experts, their router's losses."""
  experts = isinstance(getattr(backbone, 'mlp', None), mlps.Moe)
  return ('load_balance', 'router_z') if experts else ()


def nats_by_slot(
    scores: decoder_lib.Scores, frames: Float[Array, '']
) -> Float[Array, 'K']:
  """Negative log-likelihoods of all valid frames, slot by slot.

  Where a head scored only some of them (see `heads.Head`), chosen at random, it
  is an unbiased estimate: their mean times the number of frames.

  Args:
    scores: of a batch.
    frames: how many valid ones it has.
  """
  count = jnp.sum(scores.mask, axis=(0, 1)).astype(jnp.float32)
  factor = jnp.where(count == frames, 1, frames / jnp.maximum(count, 1))
  return -factor * jnp.sum(scores.log_prob, axis=(0, 1))


def loss_terms(
    losses: dict[str, Float[Array, 'B']], steps: Float[Array, 'B']
) -> dict[str, Pair]:
  """A backbone's losses as terms, means over steps."""
  count = jnp.sum(steps).astype(jnp.float32)
  return {name: (jnp.sum(loss), count) for name, loss in losses.items()}


def bits_metrics(
    name: str, nats: dict[int, Float[Array, '']], frames: Float[Array, '']
) -> dict[str, Pair]:
  """Bits a frame, in all and of each slot."""
  metrics = {name: (sum(nats.values()) / math.log(2), frames)}
  for slot, value in nats.items():
    metrics[f'{name}_codebook_{slot}'] = (value / math.log(2), frames)
  return metrics
