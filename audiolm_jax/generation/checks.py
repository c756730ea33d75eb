"""What generation is asked for, checked before anything is computed."""

from typing import Any

from jaxtyping import Bool, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import segmented
from audiolm_jax.ops import concrete


def check_given(
    decoder: decoder_lib.Decoder | segmented.Segmented,
    given: Any,
    given_mask: Any,
    num_frames: Any,
) -> None:
  """Refuses given codes and lengths out of range, as far as they are known.

  Args:
    decoder: what generates.
    given: codes [B, F, K]; of segments, such an array for each label.
    given_mask: True where codes are known; only these are looked at.
    num_frames: [B] frames of each row; of segments, by their labels.

  Raises:
    ValueError: naming the first that is wrong; for a row that lacks the first
      frame, where the decoder's rows start with a given one and it has none of
      its own.
  """
  if isinstance(decoder, segmented.Staged):
    parts = [decoder.segments(x, num_frames) for x in (given, given_mask)]
    _check_segments(decoder, parts[0][0], *parts[1])
    return
  if isinstance(decoder, segmented.Segmented):
    _check_segments(decoder, given, given_mask, num_frames)
    return
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


def _check_segments(decoder, given, given_mask, num_frames):
  """`check_given` of segments, by their labels."""
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


def _check_first(there, name):
  """there: [B] whether the first frame of each row is given."""
  if not there.all():
    raise ValueError(
        f'{name}: row {np.argmin(there)} has no first frame: this model begins'
        ' with one that is given, and has no code for rows without'
    )


def fed(
    given: Int[np.ndarray, 'B n K'] | None,
    mask: Bool[np.ndarray, 'B n *K'] | None,
    shape: tuple[int, ...],
    mask_shape: tuple[int, ...],
) -> tuple[Int[np.ndarray, 'B n K'], Bool[np.ndarray, 'B n *K']]:
  """What a session is fed, whole: zeros where nothing is given.

  Args:
    given: codes or samples; None for none.
    mask: where they are known; None for everywhere that something is given.
    shape: that `given` must have.
    mask_shape: that `mask` must have.

  Raises:
    ValueError: for other shapes.
  """
  if mask is None:
    mask = np.full(mask_shape, given is not None)
  given = np.zeros(shape, np.int32) if given is None else np.asarray(given)
  mask = np.asarray(mask, bool)
  if given.shape != shape or mask.shape != mask_shape:
    raise ValueError(
        f'given {given.shape} and mask {mask.shape}: expected {shape}'
    )
  return given, mask


def rows(
    chosen: Bool[np.ndarray, 'B'] | None, count: int
) -> Bool[np.ndarray, 'B']:
  """Which of a session's rows are meant; all for None.

  Raises:
    ValueError: if there is not one truth value for each row.
  """
  chosen = np.ones(count, bool) if chosen is None else np.asarray(chosen)
  if chosen.shape != (count,) or chosen.dtype != bool:
    raise ValueError(
        f'rows {chosen.dtype} {chosen.shape}: expected booleans ({count},)'
    )
  return chosen
