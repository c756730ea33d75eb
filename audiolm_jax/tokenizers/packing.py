"""Codes of any vocabularies as bits, a whole number for each."""

from jaxtyping import Int
import numpy as np


def code_bits(vocabulary: int) -> int:
  """ceil(log2 vocabulary): what one of so many values takes."""
  return (vocabulary - 1).bit_length()


def pack(codes: Int[np.ndarray, 'N K'], bits: tuple[int, ...]) -> bytes:
  """Codes at `bits[k]` bits each, highest first, zero bits at the end."""
  slot, shift = _columns(bits)
  # Bit by bit is 8 times the size of the result: a block, not an hour, at once.
  columns = (np.asarray(codes, np.int32)[:, slot] >> shift) & 1
  return np.packbits(columns.astype(np.uint8)).tobytes()


def unpack(
    data: bytes, count: int, bits: tuple[int, ...]
) -> Int[np.ndarray, 'N K']:
  """Inverse of `pack`, for `count` rows of codes."""
  width = sum(bits)
  codes = np.zeros((count, len(bits)), np.int32)
  raw = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width)
  raw = raw.reshape(count, width)
  start = 0
  for k, size in enumerate(bits):
    weights = 1 << np.arange(size - 1, -1, -1, dtype=np.int32)
    codes[:, k] = raw[:, start : start + size] @ weights
    start += size
  return codes


def _columns(bits):
  """For each bit of a frame: which slot's it is, and its place there."""
  slot = np.repeat(np.arange(len(bits)), bits)
  shift = [s for size in bits for s in range(size - 1, -1, -1)]
  return slot, np.asarray(shift, np.int32)
