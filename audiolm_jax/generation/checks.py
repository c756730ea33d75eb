"""What generation is asked for, checked before anything is computed."""

from typing import Any

from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import segmented
from audiolm_jax.generation import sampling
from audiolm_jax.ops import concrete


def check_given(
    decoder: decoder_lib.Decoder,
    given: Int[Array, 'B F K'],
    given_mask: Bool[Array, 'B F K'],
    num_frames: Int[Array, 'B'],
) -> None:
  """Refuses given codes and lengths out of range, as far as they are known.

  Args:
    decoder: what generates.
    given: codes that are known, where
    given_mask: is True.
    num_frames: frames of each row.

  Raises:
    ValueError: naming the first that is wrong; for a row that lacks the first
      frame, where the decoder's rows start with a given one and it has none of
      its own.
  """
  if given.shape != given_mask.shape:
    raise ValueError(f'given {given.shape}, but its mask {given_mask.shape}')
  inside, mask = ranges.within(num_frames, given.shape, 'given'), given_mask
  mask = concrete.on_host(mask)
  if inside is None or mask is None:
    return
  ranges.check_codes(given, decoder.vocabularies, inside & mask, 'given')
  if decoder.start.given and decoder.start.begin is None:
    first = mask[:, :1].all(axis=2) | ~inside[:, :1, 0]
    _check_first(first.all(axis=1), 'given')


def check_segments(
    decoder: segmented.Segmented,
    given: dict[str, Int[Array, 'B F K']],
    given_mask: dict[str, Bool[Array, 'B F K']],
    num_frames: dict[str, Int[Array, 'B']],
    sampler: sampling.Sampler,
) -> None:
  """`check_given` of segments, by their labels; and of how codes are drawn.

  Args:
    decoder: what generates.
    given: see `segments.generate`, as the others.
    given_mask: likewise.
    num_frames: likewise.
    sampler: likewise.

  Raises:
    ValueError: see `check_given`, and for a sampler that penalises repetition.
  """
  if sampler.repetition_penalty != 1:
    raise ValueError(
        f'repetition_penalty = {sampler.repetition_penalty} does nothing in'
        ' segments'
    )
  for number, segment in enumerate(decoder.sequence.segments):
    label = segment.label
    inside = ranges.within(num_frames[label], given[label].shape, label)
    mask = concrete.on_host(given_mask[label])
    if inside is None or mask is None:
      continue
    valid = inside & mask
    ranges.check_codes(
        given[label], decoder.vocabularies, valid, label, segment.slots
    )
    if decoder.start.given and not number:
      _check_first(valid[:, :1].all(axis=2).any(axis=1), label)


def check_options(
    decoder: decoder_lib.Decoder,
    *,
    null_context: Any,
    guidance: Any,
    stop: Any,
    cache_length: int | None,
    sink_tokens: int,
) -> None:
  """Refuses options that are out of range, or would do nothing.

  Args:
    decoder: what generates.
    null_context: see `generate`, as the others.
    guidance: 1 where nothing is asked for.
    stop: likewise.
    cache_length: likewise.
    sink_tokens: likewise.

  Raises:
    ValueError: naming the option.
  """
  plain = isinstance(guidance, (int, float)) and guidance == 1
  if null_context is None and not plain:
    raise ValueError('guidance does nothing without a null_context')
  if cache_length is not None and cache_length < 1:
    raise ValueError(
        f'cache_length = {cache_length}: expected at least 1 step, or None'
    )
  if sink_tokens < 0:
    raise ValueError(f'sink_tokens = {sink_tokens}: expected at least 0 steps')
  if sink_tokens and cache_length is None:
    raise ValueError(
        f'sink_tokens = {sink_tokens} does nothing without a cache_length: all is kept'
    )
  if stop is not None:
    vocabularies = decoder.vocabularies
    if stop.slot >= len(vocabularies):
      raise ValueError(f'{stop}: there are {len(vocabularies)} slots')
    if max(stop.codes) >= vocabularies[stop.slot]:
      raise ValueError(
          f'{stop}: slot {stop.slot} has codes 0 to'
          f' {vocabularies[stop.slot] - 1}'
      )


def _check_first(there, name):
  """there: [B] whether the first frame of each row is given."""
  if not there.all():
    raise ValueError(
        f'{name}: row {np.argmin(there)} has no first frame: this model begins'
        ' with one that is given, and has no code for rows without'
    )
