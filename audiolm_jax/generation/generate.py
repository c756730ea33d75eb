"""Whole rows of frames or of segments, filled in one compiled loop."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import steps
from audiolm_jax.generation import tracks
from audiolm_jax.generation import weights
from audiolm_jax.streaming import base as streaming_base


class Generated(NamedTuple):
  """Whole sequences; of segments, each attribute holds arrays by their labels.

  Attributes:
    codes: 0 past a row's length.
    log_prob: of the codes under the model itself (with its conditions, at
      temperature 1, unfiltered); 0 past a row's length and for codes that were
      taken in at once: those of prompts, and of segments that are observed.
    num_frames: frames of each row.
  """

  codes: Int[Array, 'B F K'] | dict[str, Int[Array, 'B F K']]
  log_prob: Float[Array, 'B F K'] | dict[str, Float[Array, 'B F K']]
  num_frames: Int[Array, 'B'] | dict[str, Int[Array, 'B']]


def generate(
    decoder: steps_lib.Steps,
    params: Any,
    given: Int[Array, 'B F K'] | dict[str, Int[Array, 'B F K']],
    given_mask: Bool[Array, 'B F K'] | dict[str, Bool[Array, 'B F K']],
    num_frames: Int[Array, 'B'] | dict[str, Int[Array, 'B']],
    rng: Array,
    sampler: sampling.Sampler,
    prompt_frames: int = 0,
    **options,
) -> Generated:
  """Fills what is not given of whole sequences; ends when all rows have ended.

  Args:
    decoder: what generates. Its stack is unrolled if it is not yet; who calls
      often calls `weights.unroll` once.
    params: its parameters.
    given: codes that are known, anything elsewhere. Of a decoder of segments,
      such an array for each label; of stages, of the frames that they share.
    given_mask: True where codes are known.
    num_frames: frames of each row, at most.
    rng: a key.
    sampler: how codes are drawn.
    prompt_frames: of the leading frames that are given in full in a row, at
      most so many are taken in at once instead of step by step. Only speed
      depends on it, and what `log_prob` tells. Segments have none: of theirs,
      those that are observed and come before all others are taken in at once.
    **options: see `options.Options`.

  Raises:
    ValueError: for a `stop` where lengths must be known beforehand, or more
      steps than there are learned positions; for options that are out of
      range or would do nothing; where arrays are not being traced, for codes
      and lengths out of range, and for a row without the given frame that it
      must start with.
  """
  checks.check_given(decoder, given, given_mask, num_frames)
  chosen = options_lib.Options(**options)
  chosen.check(decoder)
  if prompt_frames and not isinstance(decoder, decoder_lib.Decoder):
    raise ValueError(
        f'prompt_frames = {prompt_frames} does nothing in segments'
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
      chosen,
  )


@functools.partial(
    jax.jit, static_argnames=('decoder', 'sampler', 'prompt_frames')
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
    options,
):
  """`generate`, compiled."""
  decoder, params = weights.unroll(decoder, params)
  track = tracks.whole(
      decoder,
      given,
      params=params,
      sampler=sampler,
      lengths=num_frames,
      **options.prepare(decoder, params),
  )
  given = track.join(given).astype(jnp.int32)
  given_mask = track.join(given_mask)
  frames = given.shape[1]
  count = track.count(frames)
  decoder.check_steps(count)
  if not count:
    none = track.split(jnp.zeros(given.shape, jnp.float32))
    return Generated(track.split(0 * given), none, num_frames)
  given, given_mask = track.fill(given, given_mask)
  state = steps.start(
      track,
      track.end(),
      options.cache_length or count,
      rng,
      options.sink_tokens,
      given[:, 0],
  )
  prompts = track.prompts(given_mask, prompt_frames)
  state, codes = steps.take_prompts(track, state, given, *prompts)
  state, *filled = steps.run(track, state, given, given_mask, codes)
  # A row may have been stopped by a code of a frame that others had begun.
  valid = streaming_base.length_mask(state.frames, frames)[..., None]
  filled = [track.split(jnp.where(valid, x, 0)) for x in filled]
  return Generated(*filled, track.lengths_at(state.frames))


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
