"""A stream of frames, each given out as soon as all of its slots are drawn."""

from collections.abc import Iterator
import functools
from typing import Any

import jax
from jaxtyping import Array, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import steps
from audiolm_jax.generation import weights
from audiolm_jax.streaming import base as streaming_base

_step = jax.jit(
    steps.step,
    static_argnames=('decoder', 'sampler', 'stop'),
    donate_argnames='state',
)
_take_prompts = jax.jit(
    steps.take_prompts,
    static_argnames=('decoder', 'most', 'guided'),
    donate_argnames='state',
)


def stream(
    decoder: decoder_lib.Decoder,
    params: Any,
    prompt: Int[np.ndarray, 'P K'],
    frames: int | None,
    rng: Array,
    sampler: sampling.Sampler,
    *,
    context: streaming_base.Context = None,
    null_context: streaming_base.Context = None,
    guidance: float = 1.0,
    stop: steps.Stop | None = None,
    cache_length: int | None = None,
    sink_tokens: int = 0,
) -> Iterator[Int[np.ndarray, 'K']]:
  """The frames of one row, the prompt's first.

  They are those of `generate` with the same arguments.

  Args:
    decoder: what generates; see `weights.unroll`.
    params: its parameters.
    prompt: how the row begins.
    frames: the row's length, prompt included; None for no end.
    rng: a key.
    sampler: how codes are drawn.
    context: see `generate`, as what follows.
    null_context: likewise.
    guidance: likewise.
    stop: likewise.
    cache_length: likewise; needed where there is no end.
    sink_tokens: likewise.

  Raises:
    ValueError: without an end, if there is no cache_length, or the pattern must know
      the end beforehand; for a `stop` in such a pattern; for more steps than
      there are learned positions; for options that are out of range or would
      do nothing; for codes out of range, a prompt longer than the row, or none
      where rows must start with a given frame.
  """
  decoder, params = weights.unroll(decoder, params)
  slots, pattern = len(decoder.vocabularies), decoder.pattern
  if frames is None and (cache_length is None or not pattern.streamable):
    raise ValueError(
        'a stream without an end needs a cache_length and such a pattern'
    )
  decoder.check_steps(None if frames is None else pattern.steps(frames, slots))
  total = steps.ENDLESS if frames is None else frames
  prompt = _prompt(decoder, np.asarray(prompt), total)
  checks.check_options(
      decoder,
      null_context=null_context,
      guidance=guidance,
      stop=stop,
      cache_length=cache_length,
      sink_tokens=sink_tokens,
  )
  if not total:
    return
  guided = null_context is not None
  if guided:
    context = guidance_lib.pair(context, null_context)
  context = weights.with_keys(decoder, params, context)
  state = steps.start(
      decoder,
      np.array([total], np.int32),
      cache_length or pattern.steps(total, slots),
      rng,
      sink_tokens=sink_tokens,
      guided=guided,
      window=sampler.repetition_window,
      params=params,
      context=context,
      first=prompt[:1],
  )
  # A fresh state may use one zero for several leaves: it could not be donated.
  state = jax.tree.map(functools.partial(jax.numpy.array, copy=True), state)
  if len(prompt):
    state, _ = _take_prompts(
        decoder,
        params,
        state,
        prompt[None],
        np.array([len(prompt)], np.int32),
        len(prompt),
        context,
        guided,
    )
  # Codes of frames that are not given out yet, and how many each has.
  codes = {f: np.array(code) for f, code in enumerate(prompt)}
  missing = dict.fromkeys(codes, 0)
  begun = int(state.step[0])
  out, number = 0, begun
  while out < total:
    while missing.get(out, slots) == 0:
      yield codes.pop(out)
      del missing[out]
      out += 1
    if out >= total:
      return
    frame, slot = pattern.cells(np.array([number]), slots, np.array([total]))
    given = np.zeros(frame.shape, np.int32)
    mask = (frame >= 0) & (frame < len(prompt))
    given[mask] = prompt[frame[mask], slot[mask]]
    state, drawn, _ = _step(
        decoder,
        params,
        sampler,
        state,
        given,
        mask,
        context=context,
        guidance=guidance if guided else None,
        stop=stop,
    )
    if stop is not None:
      total = int(state.frames[0])
    drawn = np.asarray(drawn)
    for f, s, code, known in zip(
        frame[0], slot[0], drawn[0], mask[0], strict=True
    ):
      if 0 <= f < total and not known:
        codes.setdefault(f, np.zeros(slots, np.int32))[s] = code
        missing[f] = missing.get(f, slots) - 1
    number += 1


def _prompt(decoder, prompt, total):
  """A row's prompt, checked, or the frame that it begins with without one."""
  if len(prompt) > total:
    raise ValueError(f'frames = {total} < the prompt has: {len(prompt)}')
  count = min(max(len(prompt), 1), total)
  given = np.zeros((1, count, len(decoder.vocabularies)), np.int32)
  mask = np.zeros(given.shape, bool)
  if len(prompt):
    given, mask[:] = prompt[None], True
  checks.check_given(decoder, given, mask, np.array([count]))
  if not count:
    return prompt
  given, mask = map(np.asarray, decoder.start.fill(given, mask))
  return given[0] if mask.all() else prompt
