"""ABX discrimination of phones (Schatz et al. 2013), as in libri-light.

A and X are one phone in one context, B is another in the same context. The
error is the probability that X is farther from A than from B, ties half. It is
averaged over contexts, over speakers and last over pairs of phones, both ways.
Within: all three are of one speaker; across: X is of another.
"""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import Literal, NamedTuple

from jaxtyping import Float
import numpy as np

Mode = Literal['within', 'across']
# Pairs of items whose distances are computed at once.
_PAIRS = 2048


class Item(NamedTuple):
  """One phone in its context, somewhere.

  Attributes:
    file: whose frames.
    onset: where it begins, seconds.
    offset: where it ends, seconds.
    phone: the phone.
    context: what is before and after it.
    speaker: who says it.
  """

  file: str
  onset: float
  offset: float
  phone: str
  context: tuple[str, str]
  speaker: str


def cut(
    values: Float[np.ndarray, 'F D'], rate: float, item: Item
) -> Float[np.ndarray, 'n D']:
  """An item's frames: those whose middles lie in it, but for the last.

  As ZeroSpeech cuts them: from ceil(rate onset - .5) to floor(rate offset - .5),
  the latter not included.

  Args:
    values: frames of the file.
    rate: frames a second.
    item: which.
  """
  first = max(0, math.ceil(rate * item.onset - 0.5))
  last = min(len(values), math.floor(rate * item.offset - 0.5))
  return values[first : max(last, first)]


def frame_distances(
    x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, '*b n m']:
  """Of vectors their angles / pi, in [0, 1]; of codes the share that differs.

  A vector of zeros has angle 1/2 with all but another, with which it has 0.

  Args:
    x: [..., n, D] vectors, or [..., n, K] codes.
    y: [..., m, D or K] likewise.
  """
  if x.dtype.kind in 'iu':
    return np.mean(x[..., :, None, :] != y[..., None, :, :], axis=-1)
  norms = [np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y)]
  x, y = (
      v.astype(np.float64) / np.where(n > 0, n, 1)
      for v, n in zip((x, y), norms, strict=True)
  )
  cosine = x @ np.swapaxes(y, -1, -2)
  none = [n[..., 0] == 0 for n in norms]
  both = none[0][..., :, None] & none[1][..., None, :]
  # Rounding keeps equal vectors from having angle 0, which ties need.
  cosine = np.where(cosine > 1 - 1e-12, 1.0, cosine)
  return np.where(both, 0.0, np.arccos(np.clip(cosine, -1, 1)) / np.pi)


def dtw(
    costs: Float[np.ndarray, 'P n m'],
    x_lengths: Sequence[int],
    y_lengths: Sequence[int],
) -> Float[np.ndarray, 'P']:
  """Mean cost along each pair's cheapest path, steps by one in x, y or both.

  Of paths that cost the same, the one that goes back diagonally first, then in
  y, then in x: libri-light's.

  Args:
    costs: of P pairs, padded.
    x_lengths: [P] valid rows, at least 1.
    y_lengths: [P] valid columns, at least 1.
  """
  pairs, n, m = costs.shape
  total = np.full((pairs, n, m), np.inf)
  length = np.zeros((pairs, n, m), np.int64)
  for d in range(n + m - 1):
    i = np.arange(max(0, d - m + 1), min(n, d + 1))
    j = d - i
    if d == 0:
      total[:, 0, 0], length[:, 0, 0] = costs[:, 0, 0], 1
      continue
    best = np.full((pairs, len(i)), np.inf)
    steps = np.zeros((pairs, len(i)), np.int64)
    for di, dj in ((1, 1), (0, 1), (1, 0)):
      inside = (i >= di) & (j >= dj)
      before = total[:, i[inside] - di, j[inside] - dj]
      better = before < best[:, inside]
      count = length[:, i[inside] - di, j[inside] - dj]
      best[:, inside] = np.where(better, before, best[:, inside])
      steps[:, inside] = np.where(better, count, steps[:, inside])
    total[:, i, j] = best + costs[:, i, j]
    length[:, i, j] = steps + 1
  rows = np.arange(pairs)
  ends = np.asarray(x_lengths) - 1, np.asarray(y_lengths) - 1
  return total[rows, *ends] / length[rows, *ends]


def distances(
    xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]
) -> Float[np.ndarray, 'X Y']:
  """DTW distances of all of `xs` to all of `ys`, each [n, D] with n >= 1."""
  pairs = [(i, j) for i in range(len(xs)) for j in range(len(ys))]
  result = np.zeros((len(xs), len(ys)))
  for start in range(0, len(pairs), _PAIRS):
    part = pairs[start : start + _PAIRS]
    left, right = (
        [group[p[k]] for p in part] for k, group in enumerate((xs, ys))
    )
    sizes = [[len(v) for v in side] for side in (left, right)]
    left, right = map(_stack, (left, right))
    values = dtw(frame_distances(left, right), *sizes)
    for (i, j), value in zip(part, values, strict=True):
      result[i, j] = value
  return result


def _stack(rows):
  """[P, longest, D], padded with zeros."""
  longest = max(map(len, rows))
  result = np.zeros((len(rows), longest, rows[0].shape[1]), rows[0].dtype)
  for i, row in enumerate(rows):
    result[i, : len(row)] = row
  return result


def error(
    to_a: Float[np.ndarray, 'X A'],
    to_b: Float[np.ndarray, 'X B'],
    same: bool = False,
) -> float:
  """Share of triples where X is farther from A than from B; ties count half.

  Args:
    to_a: distances of X to A.
    to_b: of X to B.
    same: whether X and A are the same items: then none is compared with itself.
  """
  a, b = to_a[:, :, None], to_b[:, None, :]
  wrong = (a > b) + 0.5 * (a == b)
  if not same:
    return float(wrong.mean())
  kept = ~np.eye(len(to_a), dtype=bool)
  return float(wrong[kept].mean())


def errors(
    items: Sequence[Item],
    frames: Sequence[np.ndarray],
    mode: Mode = 'within',
    most: int = 10,
    most_x: int = 5,
    seed: int = 0,
) -> dict[tuple[str, str], float]:
  """ABX error of each pair of phones, both ways averaged.

  Args:
    items: what is compared; those without a frame are left out.
    frames: [n, D] vectors or [n, K] codes of each.
    mode: whether X is of A's and B's speaker.
    most: items of one phone, context and speaker at most, drawn at random.
    most_x: across, speakers that X is taken from for each A and B at most.
    seed: of these draws.

  Returns:
    (phone, phone) in alphabetical order -> error, of pairs that have a triple.
  """
  rng = np.random.default_rng(seed)
  cells = _cells(items, frames, most, rng)
  found: dict[tuple[str, str], dict[str, list[float]]] = {}
  for (context, speaker), phones in cells.items():
    for a, b in _ordered(phones):
      if mode == 'within':
        if len(phones[a]) < 2:
          continue
        same = distances(phones[a], phones[a])
        value = error(same, distances(phones[a], phones[b]), same=True)
      else:
        others = _others(cells, context, speaker, a, most_x, rng)
        if not others:
          continue
        value = float(
            np.mean(
                [
                    error(distances(x, phones[a]), distances(x, phones[b]))
                    for x in others
                ]
            )
        )
      found.setdefault((a, b), {}).setdefault(speaker, []).append(value)
  return _averaged(found)


def _cells(items, frames, most, rng) -> Mapping:
  """(context, speaker) -> phone -> frames of its items, at most so many."""
  cells: dict = {}
  for item, values in zip(items, frames, strict=True):
    if len(values):
      cell = cells.setdefault((item.context, item.speaker), {})
      cell.setdefault(item.phone, []).append(values)
  for cell in cells.values():
    for phone, members in cell.items():
      if len(members) > most:
        kept = sorted(rng.choice(len(members), most, replace=False))
        cell[phone] = [members[i] for i in kept]
  return cells


def _ordered(phones) -> Iterator[tuple[str, str]]:
  names = sorted(phones)
  return ((a, b) for a in names for b in names if a != b)


def _others(cells, context, speaker, phone, most, rng):
  """Items of a phone in a context, of each of some other speakers."""
  found = [
      cell[phone]
      for (c, s), cell in sorted(cells.items())
      if c == context and s != speaker and phone in cell
  ]
  if len(found) > most:
    found = [found[i] for i in sorted(rng.choice(len(found), most, False))]
  return found


def _averaged(found) -> dict[tuple[str, str], float]:
  """Over contexts, then speakers, then both ways of a pair."""
  one_way = {
      pair: float(np.mean([np.mean(v) for v in by_speaker.values()]))
      for pair, by_speaker in found.items()
  }
  pairs = sorted({tuple(sorted(pair)) for pair in one_way})
  return {
      (a, b): float(
          np.mean([one_way[p] for p in ((a, b), (b, a)) if p in one_way])
      )
      for a, b in pairs
  }
