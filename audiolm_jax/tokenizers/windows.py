"""Streams of arrays in blocks and windows of one size, and what overlaps."""

from collections.abc import Iterable, Iterator
import dataclasses

import numpy as np

# Arrays [R, T, ...] of the same R and T by name: what stands at some positions.
Piece = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Window:
  """A stretch of a stream.

  Attributes:
    start: its first position in the stream.
    piece: what stands there; shorter than the window's size at the end.
    last: whether the stream ends with it.
  """

  start: int
  piece: Piece
  last: bool

  @property
  def first(self) -> bool:
    return self.start == 0

  @property
  def size(self) -> int:
    return size(self.piece)


def size(piece: Piece) -> int:
  """T of a piece."""
  return next(iter(piece.values())).shape[1]


def rows(piece: Piece) -> int:
  """R of a piece."""
  return next(iter(piece.values())).shape[0]


def cut(piece: Piece, start: int, stop: int | None = None) -> Piece:
  """Positions [start, stop) of a piece."""
  return {name: x[:, start:stop] for name, x in piece.items()}


def padded(piece: Piece, length: int) -> Piece:
  """A piece with zeros at its end, up to `length` positions."""
  missing = length - size(piece)
  return {
      name: np.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)))
      for name, x in piece.items()
  }


def fixed(pieces: Iterable[Piece], length: int) -> Iterator[Piece]:
  """The same stream in pieces of `length`; the last may be shorter.

  A piece is given out as soon as it is whole.
  """
  held = []
  have = 0
  for piece in pieces:
    held.append(piece)
    have += size(piece)
    while have >= length:
      joined = _joined(held)
      yield cut(joined, 0, length)
      held, have = [cut(joined, length)], have - length
  if have:
    yield _joined(held)


def overlapping(
    pieces: Iterable[Piece], length: int, step: int
) -> Iterator[Window]:
  """Windows of `length` from every `step`th position, until one sees the end.

  An empty stream has none. A window comes when it is known whether it is the
  last one.
  """
  pieces = iter(pieces)
  held, start, more = [], 0, True
  while True:
    have = sum(map(size, held))
    while more and have <= length:
      piece = next(pieces, None)
      more = piece is not None
      if more:
        held.append(piece)
        have += size(piece)
    if not have:
      return
    joined = _joined(held)
    last = not more and have <= length
    yield Window(start, cut(joined, 0, length), last)
    if last:
      return
    held, start = [cut(joined, step)], start + step


def _joined(pieces: list[Piece]) -> Piece:
  if len(pieces) == 1:
    return pieces[0]
  return {
      name: np.concatenate([piece[name] for piece in pieces], axis=1)
      for name in pieces[0]
  }


def faded(before: np.ndarray | None, audio: np.ndarray) -> np.ndarray:
  """`audio` [R, T, C], cross-faded with the other version of its start."""
  if before is None:
    return audio
  n = min(before.shape[1], audio.shape[1])
  weight = ((np.arange(n, dtype=np.float32) + 0.5) / n)[:, None] if n else 1.0
  start = before[:, :n] * (1 - weight) + audio[:, :n] * weight
  return np.concatenate([start, audio[:, n:]], axis=1)


class Overlaps:
  """Compares what neighbouring windows say of the positions that they share.

  Args:
    length: positions that two windows share.
    step: positions from one window's start to the next one's.
  """

  def __init__(self, length: int, step: int):
    self._length = length
    self._step = step
    self._before = None
    self._different = self._power = self._error = 0.0
    self.compared = 0

  def add(self, values: np.ndarray) -> None:
    """Takes the [R, T, ...] that the next window gives."""
    if self._before is not None:
      n = min(self._before.shape[1], values.shape[1])
      a, b = self._before[:, :n], values[:, :n]
      self.compared += n * len(values)
      if np.issubdtype(values.dtype, np.integer):
        self._different = self._different + (a != b).sum(axis=(0, 1))
      else:
        self._error += np.square(a - b, dtype=np.float64).sum()
        self._power += np.square(b, dtype=np.float64).sum()
    self._before = values[:, self._step : self._step + self._length]

  def disagreement(self) -> tuple[float, ...]:
    """For codes: the fraction that differs in each slot; else relative RMS."""
    if not self.compared:
      return ()
    if np.ndim(self._different):
      return tuple(float(n) / self.compared for n in self._different)
    return (float(np.sqrt(self._error / max(self._power, 1e-30))),)
