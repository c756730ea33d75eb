"""Whole rows of latents that are denoised, compiled."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from audiolm_jax.decoders import flow
from audiolm_jax.generation import flow_session
from audiolm_jax.ops import sharding
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.streaming import base as streaming_base


class Rows(NamedTuple):
  """Rows to draw, their latents normalised for the network or not."""

  num_frames: Any
  given: Any
  hidden: Any
  init: Any
  start: Any = 0


@functools.partial(jax.jit, static_argnames=('decoder', 'settings', 'frames'))
def sample(
    decoder: flow.Flow,
    settings: flow_session.Settings,
    params: Any,
    key: Key[Array, ''],
    frames: int,
    rows: Rows,
    contexts: tuple[streaming_base.Context, ...],
    null_context: streaming_base.Context,
) -> Float[Array, 'B F D']:
  """Normalised latents, unspecified past the rows' lengths.

  Args:
    decoder: the model.
    settings: how noise becomes data.
    params: the model's.
    key: of all rows.
    frames: F.
    rows: normalised.
    contexts: with conditions; several for a `guidance.Mixture`.
    null_context: what guidance leads away from.
  """
  solver, grid, guidance, strength = settings
  num_frames, given, hidden, init, start = rows
  keys = noise_lib.row_keys(key, jnp.arange(len(num_frames)))
  shape = frames, decoder.dimension
  z = noise_lib.normal(noise_lib.fold(keys, flow_session.START), shape, start)
  steps, times = noise_lib.fold(keys, flow_session.STEPS), grid.times
  if init is not None:
    times *= strength
    z = decoder.process.corrupt(init, z, times[0])
  if isinstance(solver, flow_maps.Jumps):
    u = _map(decoder, params, num_frames, given, hidden, contexts[0])
    return sharding.whole(
        flow_maps.sample(solver, u, decoder.process, z, times, steps, start)
    )

  def told(context):
    return denoiser(decoder, params, num_frames, given, hidden, context)

  denoise, *others = map(told, contexts)
  if isinstance(guidance, guidance_lib.Mixture):
    parts = denoise, *others
    denoise = guidance_lib.mix(guidance, parts, told(null_context))
  elif guidance is not None:
    mask = streaming_base.length_mask(num_frames, frames)
    null = told(null_context)
    denoise = guidance_lib.guide(guidance, denoise, null, mask)
  return sharding.whole(solvers.sample(solver, denoise, z, times, steps, start))


def denoiser(
    decoder: flow.Flow,
    params: Any,
    num_frames: Int[Array, 'B'],
    given: Float[Array, 'B F D'] | None,
    hidden: Bool[Array, 'B F'] | None,
    context: streaming_base.Context,
) -> gaussian.Denoiser:
  """The decoder with all but z and t, given frames held; see `Flow.predict`."""

  def predict(z, t):
    rows = num_frames, given, hidden, context
    output = decoder.apply({'params': params}, z, t, *rows, method='predict')
    return decoder.held(output, z, t, given, hidden)

  return gaussian.Denoiser(decoder.process, decoder.target, predict)


def _map(decoder, params, num_frames, given, hidden, context):
  """The decoder's flow map; what is given goes straight to where it is."""

  def u(z, t, s):
    rows = num_frames, given, hidden, context
    output = decoder.apply(
        {'params': params}, z, t, *rows, s=s, method='predict'
    )
    return decoder.held(output, z, t, given, hidden)

  return u
