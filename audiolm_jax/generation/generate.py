"""Generation: one step, and the compiled loop over it.

Some codes of a step are given. A prompt is a run of given frames,
infilling gives some slots or frames, and the stream of a live user gives that
user's slots step by step: all are the same thing.

What is drawn depends on the seed, the row, the row's own step and the slot, and
on nothing else: a stream, a loop, a prompt that was taken in at once or step by
step, and another batch beside a row all give the same codes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import steps
from audiolm_jax.generation import weights
from audiolm_jax.streaming import base as streaming_base


class Generated(NamedTuple):
  """Whole sequences.

  Attributes:
    codes: 0 past a row's length.
    log_prob: of the codes under the model itself (with its conditions, at
      temperature 1, unfiltered); 0 past a row's length and for codes of a
      prompt that was taken in at once.
    num_frames: frames of each row.
  """

  codes: Int[Array, 'B F K']
  log_prob: Float[Array, 'B F K']
  num_frames: Int[Array, 'B']


def generate(
    decoder: decoder_lib.Decoder,
    params: Any,
    given: Int[Array, 'B F K'],
    given_mask: Bool[Array, 'B F K'],
    num_frames: Int[Array, 'B'],
    rng: Array,
    sampler: sampling.Sampler,
    prompt_frames: int = 0,
    *,
    context: streaming_base.Context = None,
    null_context: streaming_base.Context = None,
    guidance: Float[Array, ''] | float = 1.0,
    stop: steps.Stop | None = None,
    cache_length: int | None = None,
    sink_tokens: int = 0,
) -> Generated:
  """Fills what is not given of whole sequences, in one compiled loop.

  It ends when all rows have ended.

  Args:
    decoder: what generates. Its stack is unrolled if it is not yet; who calls
      often calls `weights.unroll` once.
    params: its parameters.
    given: codes that are known, where
    given_mask: is True.
    num_frames: frames of each row, at most.
    rng: a key.
    sampler: how codes are drawn.
    prompt_frames: of the leading frames that are given in full in a row, at
      most so many are taken in at once instead of step by step. Only speed
      depends on it, and what `log_prob` tells.
    context: see the backbone, or `Decoder.context`.
    null_context: what replaces it where conditions are dropped; if not None,
      predictions are guided.
    guidance: see `guidance.combine`.
    stop: what ends a row before its length.
    cache_length: steps that attention without a window keeps in sight; None for all.
    sink_tokens: first steps that stay in sight beside them.

  Raises:
    ValueError: for a `stop` in a pattern that must know lengths beforehand, or
      more steps than there are learned positions; for options that are out of
      range or would do nothing; where arrays are not being traced, for codes
      and lengths out of range, and for a row without the given frame that it
      must start with.
  """
  checks.check_given(decoder, given, given_mask, num_frames)
  checks.check_options(
      decoder,
      null_context=null_context,
      guidance=guidance,
      stop=stop,
      cache_length=cache_length,
      sink_tokens=sink_tokens,
  )
  return _generate(
      decoder,
      params,
      given,
      given_mask,
      num_frames,
      rng,
      sampler,
      prompt_frames,
      context,
      null_context,
      guidance,
      stop,
      cache_length,
      sink_tokens,
  )


@functools.partial(
    jax.jit,
    static_argnames=(
        'decoder',
        'sampler',
        'prompt_frames',
        'stop',
        'cache_length',
        'sink_tokens',
    ),
)
def _generate(
    decoder,
    params,
    given,
    given_mask,
    num_frames,
    rng,
    sampler,
    prompt_frames,
    context,
    null_context,
    guidance,
    stop,
    cache_length,
    sink_tokens,
):
  """`generate`, compiled."""
  decoder, params = weights.unroll(decoder, params)
  frames, slots = given.shape[1:]
  pattern = decoder.pattern
  count = pattern.steps(frames, slots)
  decoder.check_steps(count)
  codes = jnp.zeros(given.shape, jnp.int32)
  log_prob = jnp.zeros(given.shape, jnp.float32)
  if not count:
    return Generated(codes, log_prob, jnp.asarray(num_frames, jnp.int32))
  given, given_mask = decoder.start.fill(given, given_mask)
  # Nothing comes before frames that are given to every row: they are no steps.
  prompt_frames = max(prompt_frames, decoder.start.given)
  guided = null_context is not None
  if guided:
    context = guidance_lib.pair(context, null_context)
  context = weights.with_keys(decoder, params, context)
  state = steps.start(
      decoder,
      num_frames,
      cache_length or count,
      rng,
      sink_tokens=sink_tokens,
      guided=guided,
      window=sampler.repetition_window,
      params=params,
      context=context,
      first=given[:, 0],
  )
  if prompt_frames:
    prompts = _given_frames(given_mask, num_frames, prompt_frames)
    state, codes = steps.take_prompts(
        decoder, params, state, given, prompts, prompt_frames, context, guided
    )
  rows = jnp.arange(given.shape[0])[:, None]
  # How many steps a row of each length has.
  ends = jnp.array([pattern.steps(f, slots) for f in range(frames + 1)])

  def running(carry):
    state = carry[0]
    return jnp.any(state.step < ends[state.frames])

  def body(carry):
    state, codes, log_prob = carry
    frame, slot = pattern.cells(state.step, slots, state.frames)
    at = rows, jnp.clip(frame, 0, frames - 1), slot
    inside = (frame >= 0) & (frame < frames)
    state, drawn, scores = steps.step(
        decoder,
        params,
        sampler,
        state,
        given[at],
        given_mask[at] & inside,
        context=context,
        guidance=guidance if guided else None,
        stop=stop,
    )
    # Out of bounds, where nothing is written.
    at = rows, jnp.where(state.exists, frame, frames), slot
    codes = codes.at[at].set(drawn, mode='drop')
    log_prob = log_prob.at[at].set(scores, mode='drop')
    return state, codes, log_prob

  state, codes, log_prob = jax.lax.while_loop(
      running, body, (state, codes, log_prob)
  )
  # A row may have been stopped by a code of a frame that others had begun.
  valid = streaming_base.length_mask(state.frames, frames)[..., None]
  return Generated(
      jnp.where(valid, codes, 0), jnp.where(valid, log_prob, 0), state.frames
  )


def _given_frames(given_mask, num_frames, most):
  """How many leading frames of each row are given, up to `most`."""
  whole = jnp.all(given_mask, axis=2)
  leading = jnp.sum(jnp.cumprod(whole, axis=1, dtype=jnp.int32), axis=1)
  return jnp.minimum(jnp.minimum(leading, most), num_frames)


def continue_prompts(
    prompts: Int[np.ndarray, 'B P K'],
    num_frames: Int[np.ndarray, 'B'],
    frames: int,
) -> tuple[Int[np.ndarray, 'B F K'], Bool[np.ndarray, 'B F K'], int]:
  """Prompts as `generate` takes them: (given, given_mask, prompt_frames).

  Args:
    prompts: padded to P frames.
    num_frames: frames of each.
    frames: F >= P.
  """
  extra = frames - prompts.shape[1]
  given = np.pad(prompts, ((0, 0), (0, extra), (0, 0)))
  mask = np.arange(frames)[None, :, None] < num_frames[:, None, None]
  # Few lengths, and so few compilations.
  most, longest = 1, int(num_frames.max(initial=0))
  while most < longest:
    most *= 2
  return (
      given,
      np.broadcast_to(mask, given.shape),
      min(most, frames) if longest else 0,
  )
