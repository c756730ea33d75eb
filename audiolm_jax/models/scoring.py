"""What decoders of every kind say of a batch, compiled."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base


@functools.partial(jax.jit, static_argnames='decoder')
def score(
    decoder: Any,
    params: Any,
    inputs: tuple[Any, ...],
    rng: Array | None = None,
) -> scores_lib.Scores:
  """`decoder.score` without dropout; each process gets all rows.

  Args:
    decoder: of frames, segments or samples.
    params: its parameters.
    inputs: what `decoder.score` takes, as `decoder.read` gives it.
    rng: a key for a decoder whose scores are bounds, drawn with it.
  """
  rngs = None if rng is None else {'bound': rng}
  scores = decoder.apply({'params': params}, *inputs, rngs=rngs, method='score')
  return sharding.whole(scores)


@functools.partial(jax.jit, static_argnames=('decoder', 'batch'))
def context(
    decoder: Any,
    params: Any,
    conditions: conditioners.Conditions | None,
    batch: int,
) -> streaming_base.Context:
  """`decoder.context` without dropout.

  Args:
    decoder: of frames or segments.
    params: its parameters.
    conditions: arrays of its conditions; None for the empty ones.
    batch: rows.
  """
  return decoder.apply({'params': params}, conditions, batch, method='context')


@functools.partial(jax.jit, static_argnames='decoder')
def states(
    decoder: Any, params: Any, inputs: tuple[Any, ...]
) -> Float[Array, 'B F D']:
  """`decoder.states` without dropout; each process gets all rows.

  Args:
    decoder: of frames.
    params: its parameters.
    inputs: what `decoder.states` takes.
  """
  return sharding.whole(
      decoder.apply({'params': params}, *inputs, method='states')
  )
