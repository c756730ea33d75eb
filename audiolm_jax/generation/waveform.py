"""Generation of samples of audio: one compiled loop, O(layers) a sample.

As with tokens, a prompt, an infilled gap and a live signal are one thing: some
samples are given.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.decoders import wavenet
from audiolm_jax.streaming import base as streaming_base


class State(flax.struct.PyTreeNode):
  """Where generation stands, row by row.

  Attributes:
    past: the decoder's state; it has not seen `samples` yet.
    samples: [B, C] the last ones.
    exists: [B] False before the first.
    rng: a key, split at every sample.
  """

  past: Any
  samples: Int[Array, 'B C']
  exists: Bool[Array, 'B']
  rng: Array


@functools.partial(jax.jit, static_argnames='decoder')
def start(
    decoder: wavenet.WaveNet,
    params: Any,
    prompt: Int[Array, 'B P C'],
    rng: Array,
    context: streaming_base.Context = None,
) -> State:
  """The state after a prompt of P >= 0 samples, taken in at once."""
  batch, length, _ = prompt.shape
  past = decoder.initial_state(batch)
  if not length:
    none = jnp.zeros((batch, decoder.channels), jnp.int32)
    return State(past, none, jnp.zeros(batch, bool), rng)
  # The last sample is the input of the step to come.
  inputs = streaming_base.pad_time(prompt[:, :-1], 1, 0)
  exists = jnp.broadcast_to(jnp.arange(length) > 0, (batch, length))
  _, past = decoder.apply(
      {'params': params}, past, inputs, exists, context, method='extend'
  )
  return State(past, prompt[:, -1], jnp.ones(batch, bool), rng)


@functools.partial(jax.jit, static_argnames='decoder')
def run(
    decoder: wavenet.WaveNet,
    params: Any,
    state: State,
    given: Int[Array, 'B n C'],
    given_mask: Bool[Array, 'B n'],
    temperature: Float[Array, ''] | float = 1.0,
    context: streaming_base.Context = None,
) -> tuple[State, Int[Array, 'B n C'], Float[Array, 'B n C']]:
  """The next n samples.

  Args:
    decoder: what generates.
    params: its parameters.
    state: where generation stands.
    given: levels that are known, where
    given_mask: is True.
    temperature: 0 takes the likeliest (`waveform_heads`).
    context: the same at each call.

  Returns:
    The next state; the samples; their log-probabilities (nats) under the model
    itself, at temperature 1.
  """

  def body(state, inputs):
    known, is_known = inputs
    h, past = decoder.apply(
        {'params': params},
        state.past,
        state.samples[:, None],
        state.exists[:, None],
        context,
        method='extend',
    )
    rng, key = jax.random.split(state.rng)
    drawn = decoder.apply(
        {'params': params}, h[:, 0], key, temperature, method='sample'
    )
    samples = jnp.where(is_known[:, None], known, drawn)
    log_prob = decoder.apply(
        {'params': params}, h[:, 0], samples, method='log_prob'
    )
    exists = jnp.ones_like(state.exists)
    return State(past, samples, exists, rng), (samples, log_prob)

  inputs = jnp.swapaxes(given, 0, 1), given_mask.T
  state, outputs = jax.lax.scan(body, state, inputs)
  return state, *(jnp.swapaxes(x, 0, 1) for x in outputs)
