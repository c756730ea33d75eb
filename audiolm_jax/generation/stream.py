"""A stream of frames, each given out as soon as all of its slots are drawn."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import Array, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import session as session_lib


def stream(
    decoder: decoder_lib.Decoder,
    params: Any,
    prompt: Int[np.ndarray, 'P K'],
    frames: int | None,
    rng: Array,
    sampler: sampling.Sampler,
    **options,
) -> Iterator[Int[np.ndarray, 'K']]:
  """The frames of one row, the prompt's first, from a `Session` of its own.

  They are those of `generate` with the same arguments.

  Args:
    decoder: the model; its stack is unrolled if it is not yet.
    params: its parameters.
    prompt: how the row begins.
    frames: the row's length, prompt included; None for no end.
    rng: a key.
    sampler: how codes are drawn.
    **options: `context`, `null_context`, `guidance`, `stop`, `cache_length` and
      `sink_tokens` of `Session`.

  Raises:
    ValueError: for what `Session` refuses.
  """
  prompt = np.asarray(prompt)
  session = session_lib.Session(
      decoder,
      params,
      prompt[None],
      np.array([len(prompt)]),
      frames,
      rng,
      sampler,
      **options,
  )
  begun = int(session.entered[0])
  # `step` gives the prompt's last frames again, as it gives all frames.
  yield from session.prompts[0, : max(begun - session.latency, 0)]
  stops = options.get('stop') is not None
  while frames is None or session.entered[0] < frames:
    codes = session.step()
    out = session.entered[0] - 1 - session.latency
    if stops and out >= session.num_frames[0]:
      return
    if codes is not None:
      yield codes[0]
  rest = session.flush()[0]
  ended = session.entered[0] - session.num_frames[0]
  yield from rest[: max(len(rest) - ended, 0)]
