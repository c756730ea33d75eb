"""Generation: one step, and the compiled loop over it.

A step is told which of its codes are given. A prompt is a run of given frames,
infilling gives some slots or frames, and the stream of a live user gives that
user's slots step by step: all are the same thing.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import sampling

# More frames than any stream has.
ENDLESS = np.iinfo(np.int32).max


class State(flax.struct.PyTreeNode):
  """Where generation stands, row by row.

  Attributes:
    cache: the decoder's state; it has not seen `codes` yet.
    codes: [B, G] of the step before.
    slots: [B, G] their slots.
    exists: [B, G] False where they only fill.
    step: [B] the next step.
    frames: [B] length of each row's sequence.
    rng: a key, split at every step.
  """

  cache: Any
  codes: Int[Array, 'B G']
  slots: Int[Array, 'B G']
  exists: Bool[Array, 'B G']
  step: Int[Array, 'B']
  frames: Int[Array, 'B']
  rng: Array


def start(
    decoder: decoder_lib.Decoder,
    frames: Int[Array, 'B'],
    steps: int,
    rng: Array,
) -> State:
  """The state before the first step.

  Args:
    decoder: what generates.
    frames: length of each row's sequence; `ENDLESS` for a stream.
    steps: that attention without a window keeps in sight.
    rng: a key.
  """
  batch = frames.shape[0]
  step = jnp.zeros(batch, jnp.int32)
  _, slots = decoder.pattern.cells(step, len(decoder.vocabularies), frames)
  none = jnp.zeros((batch, decoder.group), jnp.int32)
  return State(
      cache=decoder.initial_state(batch, steps),
      codes=none,
      slots=slots,
      exists=none.astype(bool),
      step=step,
      frames=frames,
      rng=rng,
  )


def restart(state: State, fresh: State, rows: Bool[Array, 'B']) -> State:
  """`state` with some rows taken from `fresh`, a state of `start`."""

  def pick(new, old):
    return jnp.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  return state.replace(
      cache=jax.tree.map(pick, fresh.cache, state.cache),
      **{
          name: pick(getattr(fresh, name), getattr(state, name))
          for name in ('codes', 'slots', 'exists', 'step', 'frames')
      },
  )


def step(
    decoder: decoder_lib.Decoder,
    params: Any,
    sampler: sampling.Sampler,
    state: State,
    given: Int[Array, 'B G'],
    given_mask: Bool[Array, 'B G'],
) -> tuple[State, Int[Array, 'B G'], Float[Array, 'B G']]:
  """Takes one step.

  Args:
    decoder: what generates.
    params: its parameters.
    sampler: how codes are drawn.
    state: where generation stands.
    given: codes that are known, where
    given_mask: is True. Places without a frame are filled in any case.

  Returns:
    The next state; the step's codes (0 where there is no frame); their
    log-probabilities under the model itself, at temperature 1 and unfiltered
    (0 where there is no frame).
  """
  slots = len(decoder.vocabularies)
  h, cache = decoder.apply(
      {'params': params},
      state.cache,
      state.codes[:, None],
      state.slots[:, None],
      state.exists[:, None],
      method='extend',
  )
  frame, slot = decoder.pattern.cells(state.step, slots, state.frames)
  exists = (frame >= 0) & (frame < state.frames[:, None])
  rng, key = jax.random.split(state.rng)
  codes, log_prob = decoder.apply(
      {'params': params},
      h,
      slot,
      exists,
      given,
      given_mask,
      lambda logits, rng, slots: sampler(logits, rng),
      key,
      method='sample',
  )
  codes = jnp.where(exists, codes, 0)
  log_prob = jnp.where(exists, log_prob, 0)
  state = state.replace(
      cache=cache,
      codes=codes,
      slots=slot,
      exists=exists,
      step=state.step + 1,
      rng=rng,
  )
  return state, codes, log_prob


@functools.partial(
    jax.jit, static_argnames=('decoder', 'sampler', 'prompt_frames')
)
def generate(
    decoder: decoder_lib.Decoder,
    params: Any,
    given: Int[Array, 'B F K'],
    given_mask: Bool[Array, 'B F K'],
    lengths: Int[Array, 'B'],
    rng: Array,
    sampler: sampling.Sampler,
    prompt_frames: int = 0,
) -> tuple[Int[Array, 'B F K'], Float[Array, 'B F K']]:
  """Fills what is not given of whole sequences, in one compiled loop.

  Args:
    decoder: what generates.
    params: its parameters.
    given: codes that are known, where
    given_mask: is True.
    lengths: frames of each row.
    rng: a key.
    sampler: how codes are drawn.
    prompt_frames: leading frames that are given in full in every row; they are
      taken in at once instead of step by step. Only speed depends on it.

  Returns:
    Codes, 0 past a row's length, and the log-probabilities of those that were
    not part of the first `prompt_frames` frames (0 there).
  """
  layout = decoder.pattern.layout(*given.shape[1:])
  steps = layout.frame.shape[0]
  prompt = max(0, min(layout.given_steps(prompt_frames), steps - 1))
  given, given_mask = layout.to_steps(given), layout.to_steps(given_mask)
  state = start(decoder, lengths, steps, rng)
  if prompt:
    exists = layout.scored(lengths)[:, :prompt]
    codes = jnp.where(exists, given[:, :prompt], 0)
    slots = jnp.broadcast_to(layout.slot[:prompt], codes.shape)
    _, cache = decoder.apply(
        {'params': params},
        state.cache,
        jnp.concatenate([state.codes[:, None], codes[:, :-1]], axis=1),
        jnp.concatenate([state.slots[:, None], slots[:, :-1]], axis=1),
        jnp.concatenate([state.exists[:, None], exists[:, :-1]], axis=1),
        method='extend',
    )
    state = state.replace(
        cache=cache,
        codes=codes[:, -1],
        slots=slots[:, -1],
        exists=exists[:, -1],
        step=state.step + prompt,
    )
  else:
    codes = given[:, :0]

  def body(state, inputs):
    state, *outputs = step(decoder, params, sampler, state, *inputs)
    return state, outputs

  rest = [jnp.swapaxes(x[:, prompt:], 0, 1) for x in (given, given_mask)]
  _, outputs = jax.lax.scan(body, state, rest)
  sampled, log_prob = [jnp.swapaxes(x, 0, 1) for x in outputs]
  codes = jnp.concatenate([codes, sampled], axis=1)
  log_prob = jnp.pad(log_prob, ((0, 0), (prompt, 0), (0, 0)))
  return layout.to_frames(codes), layout.to_frames(log_prob)
