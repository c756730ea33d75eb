"""Codes and lengths that are out of range, found before anything is computed.

JAX reads another place of a table where an index is out of its range, and says
nothing. Only arrays that hold values can be looked at: within a compiled
function nothing is checked, and nothing costs.
"""

from collections.abc import Sequence

from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax.ops import concrete


def check_codes(
    codes: Int[Array, 'B F K'],
    vocabularies: Sequence[int],
    valid: Bool[Array, 'B F #K'] | None = None,
    name: str = 'codes',
    slots: Sequence[int] | None = None,
) -> None:
  """Refuses codes that their slots do not have.

  Args:
    codes: of F frames.
    vocabularies: how many codes each of the decoder's slots has.
    valid: which of them count; None for all.
    name: of the codes, for the message.
    slots: which of the decoder's; None for all.

  Raises:
    ValueError: naming the first that is wrong, or for an array of another shape
      or of no integers.
  """
  if slots is None:
    slots = range(len(vocabularies))
  if codes.ndim != 3 or codes.shape[2] != len(slots):
    raise ValueError(f'{name} {codes.shape}: expected [B, F, {len(slots)}]')
  codes, known = concrete.on_host(codes), valid is None
  valid = concrete.on_host(valid)
  if codes is None or not (known or valid is not None):
    return
  if codes.dtype.kind not in 'iu':
    if codes.size:
      raise ValueError(f'{name} are {codes.dtype}: expected integers')
    return
  sizes = np.array([vocabularies[slot] for slot in slots])
  wrong = (codes < 0) | (codes >= sizes)
  if valid is not None:
    wrong &= valid
  if wrong.any():
    row, frame, k = np.argwhere(wrong)[0]
    raise ValueError(
        f'{name}: slot {slots[k]} of frame {frame} of row {row} is'
        f' {codes[row, frame, k]}, but its vocabulary has codes 0 to'
        f' {sizes[k] - 1}'
    )


def check_frames(
    codes: Int[Array, 'B F K'],
    num_frames: Int[Array, 'B'] | None,
    vocabularies: Sequence[int],
    name: str = 'codes',
    slots: Sequence[int] | None = None,
    mask: Bool[Array, 'B F K'] | None = None,
) -> None:
  """`check_codes` of rows' first `num_frames` frames; None for all of them.

  Args:
    codes: see `check_codes`.
    num_frames: of each row.
    vocabularies: see `check_codes`.
    name: see `check_codes`.
    slots: see `check_codes`.
    mask: which codes of those frames count; None for all.

  Raises:
    ValueError: see `check_codes` and `within`.
  """
  valid = mask
  if num_frames is not None:
    valid = within(num_frames, codes.shape, name)
    if valid is None:
      return
    if mask is not None:
      mask = concrete.on_host(mask)
      if mask is None:
        return
      valid = valid & mask
  check_codes(codes, vocabularies, valid, name, slots)


def within(
    num_frames: Int[Array, 'B'], shape: Sequence[int], name: str = 'codes'
) -> Bool[np.ndarray, 'B F 1'] | None:
  """What lies within rows' lengths; None where they can not be looked at.

  Raises:
    ValueError: if they are not one a row, or out of range.
  """
  num_frames = concrete.on_host(num_frames)
  if num_frames is None:
    return None
  rows, most = shape[:2]
  if num_frames.shape != (rows,):
    raise ValueError(f'num_frames {num_frames.shape} for {name} {tuple(shape)}')
  if rows and not 0 <= num_frames.min() <= num_frames.max() <= most:
    row = int(np.argmax((num_frames < 0) | (num_frames > most)))
    raise ValueError(
        f'{name}: length {num_frames[row]} of row {row} is not in [0, {most}]'
    )
  return (np.arange(most) < num_frames[:, None])[..., None]
