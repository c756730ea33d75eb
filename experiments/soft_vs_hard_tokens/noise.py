"""Noise of known entropy: what a head of samples should need, and not less."""

import pathlib
from typing import Any

import numpy as np
import scipy.stats

from audiolm_jax.audio import files
from audiolm_jax.data import corpora
from audiolm_jax.lab import stages

RATE = 8000
_SECONDS = 4.0
# Scales, in levels of 16 bits.
_DEVIATION = 1000.0
# Of 8 bits, where each mu-law class of 256 holds at most one level.
_LEVELS = np.arange(-20, 21)


def probabilities(kind: str, bits: int) -> np.ndarray:
  """Of the levels of a grid, from the lowest up.

  Args:
    kind: 'gaussian' or 'laplace', of one deviation; or 'levels': 41 levels
      around zero that are as likely as they happen to be.
    bits: of the grid.

  Raises:
    ValueError: for another kind.
  """
  half = 2 ** (bits - 1)
  levels = np.arange(-half, half)
  if kind == 'levels':
    p = np.zeros(2 * half)
    drawn = np.random.default_rng(0).gamma(0.5, size=len(_LEVELS))
    p[half + _LEVELS] = drawn / drawn.sum()
    return p
  scale = _DEVIATION * 2.0 ** (bits - 16)
  if kind == 'gaussian':
    law = scipy.stats.norm(scale=scale)
  elif kind == 'laplace':
    law = scipy.stats.laplace(scale=scale / np.sqrt(2))
  else:
    raise ValueError(f'kind = {kind!r}: no noise is called so')
  # Cells at the ends hold what is beyond; by symmetry, without cancellation.
  edges = law.cdf(-np.abs(levels - 0.5))
  edges = np.where(levels > 0, 1 - edges, edges)
  return np.diff(np.append(np.where(levels == -half, 0.0, edges), 1.0))


def entropy(p: np.ndarray) -> float:
  """Bits of one draw."""
  p = p[p > 0]
  return float(-(p * np.log2(p)).sum())


def write(
    directory: pathlib.Path,
    inputs: stages.Directories,
    kind: str,
    bits: int,
    clips: int,
) -> dict[str, Any]:
  """Writes clips of independent samples, and gives their entropy.

  Args:
    directory: 'clips' is written in it.
    inputs: none.
    kind: see `probabilities`.
    bits: of the grid that the samples are on.
    clips: how many.
  """
  del inputs
  p = probabilities(kind, bits)
  half = len(p) // 2
  rng = np.random.default_rng(1)
  size = round(_SECONDS * RATE)
  for i in range(clips):
    samples = rng.choice(len(p), size=size, p=p) - half
    path = directory / 'clips' / f'{i:03d}.flac'
    files.write(path, (samples / half)[:, None], RATE)
  corpora.prepare(str(directory / 'clips'))
  return {'metrics': {'entropy': entropy(p)}}
