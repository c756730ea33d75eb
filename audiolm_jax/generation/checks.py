"""What generation is asked for, checked before anything is computed."""

from typing import Any

import jax
from jaxtyping import Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import of_frames
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.ops import concrete


def check_codes(
    decoder: of_frames.OfFrames | steps_lib.Steps,
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
    ValueError: naming the first that is wrong.
  """
  shapes, of_mask = (jax.tree.map(np.shape, x) for x in (given, given_mask))
  if shapes != of_mask:
    raise ValueError(f'given {shapes}, but its mask {of_mask}')
  decoder.check(given, num_frames, given_mask)


def check_given(
    decoder: steps_lib.Steps,
    given: Any,
    given_mask: Any,
    num_frames: Any,
) -> None:
  """`check_codes` of a decoder of steps.

  Args:
    decoder: what generates.
    given: see `check_codes`.
    given_mask: see `check_codes`.
    num_frames: see `check_codes`.

  Raises:
    ValueError: naming the first that is wrong; for a row that lacks the first
      frame, where the decoder's rows start with a given one and it has none of
      its own.
  """
  check_codes(decoder, given, given_mask, num_frames)
  if not decoder.start.given or decoder.start.begin is not None:
    return
  (codes, lengths), (masks, _) = (
      decoder.segments(x, num_frames) for x in (given, given_mask)
  )
  label = decoder.sequence.segments[0].label
  inside = ranges.within(lengths[label], codes[label].shape, label)
  mask = concrete.on_host(masks[label])
  if inside is None or mask is None:
    return
  there = (inside & mask)[:, :1].all(axis=2).any(axis=1)
  if isinstance(decoder, decoder_lib.Framed):
    # Rows without frames begin with none.
    there |= ~inside[:, :1].any(axis=(1, 2))
  if not there.all():
    raise ValueError(
        f'{label}: row {np.argmin(there)} has no first frame: this model begins'
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


def latents(
    name: str,
    values: Any,
    mask: Bool[np.ndarray, 'B F'],
    dimension: int,
) -> Float[np.ndarray, 'B F D']:
  """Latents that are known in some frames, 0 in all others.

  Args:
    name: what they are, for the message.
    values: anything where not known.
    mask: where they are known.
    dimension: D.

  Raises:
    ValueError: for another shape, or known ones that are not finite.
  """
  values, wanted = np.asarray(values), (*mask.shape, dimension)
  if values.shape != wanted:
    raise ValueError(
        f'{name} latents {values.shape}: expected {wanted}, as many rows, frames'
        ' and dimensions as the result has'
    )
  if not np.isfinite(values[mask]).all():
    raise ValueError(f'{name} latents are not finite')
  return np.where(mask[..., None], values, 0).astype(np.float32)


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
