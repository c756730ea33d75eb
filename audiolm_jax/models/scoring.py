"""What decoders of every kind say of a batch, compiled."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.ops import sharding
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.streaming import base as streaming_base


@functools.partial(jax.jit, static_argnames='decoder')
def score(
    decoder: Any, params: Any, inputs: tuple[Any, ...]
) -> scores_lib.Scores:
  """`decoder.score` without dropout; each process gets all rows.

  Args:
    decoder: of frames, segments or samples, whose scores are exact.
    params: its parameters.
    inputs: what `decoder.score` takes, as `decoder.read` gives it.
  """
  scores = decoder.apply({'params': params}, *inputs, method='score')
  return sharding.whole(scores)


@functools.partial(jax.jit, static_argnames=('decoder', 'draws', 'keep'))
def bound(
    decoder: Any,
    params: Any,
    inputs: tuple[Any, ...],
    keys: Key[Array, 'B'],
    draws: int = 1,
    keep: tuple[float, ...] | None = None,
) -> tuple[scores_lib.Scores, Float[Array, 'B']]:
  """The mean of draws of a bound, and the variance of each row's mean.

  The draws' levels are stratified, which makes the mean better than the variance
  says: it is that of independent draws.

  Args:
    decoder: whose `score` draws a bound.
    params: its parameters.
    inputs: what `decoder.score` takes, as `decoder.read` gives it.
    keys: of the rows, from what tells them apart wherever they stand.
    draws: of each row, one after the other.
    keep: of `decoder.step_score`, in its place; None for `decoder.score`.

  Returns:
    Scores, and of the nats of each row (all streams) the variance, NaN for one
    draw.
  """
  offset = jax.vmap(jax.random.uniform)(noise_lib.fold(keys, draws))
  variables = {'params': params}

  def draw(number):
    own = {
        'keys': noise_lib.fold(keys, number),
        'level': (number + offset) / draws,
    }
    if keep is None:
      return decoder.apply(variables, *inputs, method='score', **own)
    codes, lengths, *rest = inputs
    return decoder.apply(
        variables,
        codes,
        lengths,
        np.array(keep),
        own['keys'],
        own['level'],
        *rest,
        method='step_score',
    )

  scores = jax.lax.map(draw, jnp.arange(draws))
  nats = sum(s.log_prob.sum((2, 3)) for s in scores.streams.values())
  variance = jnp.var(nats, axis=0, ddof=1) / draws
  streams = {
      label: scores_lib.StreamScores(s.log_prob.mean(0), s.mask[0])
      for label, s in scores.streams.items()
  }
  scores = scores_lib.Scores(streams, tag=decoder.tag)
  return sharding.whole((scores, variance))


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


def contexts(
    decoder: Any,
    params: Any,
    conditions: Mapping[str, Sequence[Any]] | None,
    rows: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
  """Options of `generation` with what conditions have become.

  Args:
    decoder: of frames or segments.
    params: its parameters.
    conditions: by name, a value for each row; see `Conditioned.prepare`.
    rows: how many.
    options: of `generation`, with `guidance` if it is wanted.

  Raises:
    ValueError: for conditions that do not fit, or beside a context.
  """
  options = dict(options)
  if 'context' in options or not decoder.conditions:
    if conditions:
      raise ValueError('conditions beside a context, or of a model without')
    return options
  prepared = decoder.prepare(conditions, rows)
  options['context'] = context(decoder, params, prepared, rows)
  if 'guidance' in options:
    options['null_context'] = context(decoder, params, None, 1)
  return options


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
