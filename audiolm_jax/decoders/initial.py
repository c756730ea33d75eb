"""Initial values for decoders of codes, from the codec's own vectors."""

from typing import Any

from jaxtyping import Float
import numpy as np

# Root mean square of what classifiers start from.
_CLASSIFIERS = 0.1


def from_codebooks(
    codebooks: Float[np.ndarray, 'K V D'],
    width: int,
    head: Any,
    step_layout: Any,
    seed: int = 0,
) -> dict[str, Any]:
  """Embeddings and classifiers that know which codes sound alike.

  Both are the codec's own vectors under one random projection with orthonormal
  rows: the sum of a frame's embeddings is then its latent, codes that are near
  each other start near each other, and "like the frame before" is what an
  untrained model predicts. From random vectors all that has to be learnt code
  by code; the quickstart's 400 steps reach 5.5 bits in the first codebook from
  here and 8.3 from there (BENCHMARKS.md).

  Args:
    codebooks: of the decoder's K slots, all of one vocabulary.
    width: of the backbone.
    head: the decoder's, which says what it starts from (`Head.initial`).
    step_layout: the decoder's.
    seed: of the projection.

  Returns:
    The part of the decoder's parameters that it sets.
  """
  rng = np.random.default_rng(seed)
  projection = orthonormal(codebooks.shape[2], width, rng)
  return {
      'embedding': embeddings(codebooks, projection),
      'head': head.initial(codebooks, projection, step_layout, rng),
  }


def orthonormal(
    rows: int, columns: int, rng: np.random.Generator
) -> Float[np.ndarray, 'rows columns']:
  """Random, with orthonormal rows; with orthonormal columns if they are fewer."""
  square = rng.normal(size=(max(rows, columns), min(rows, columns)))
  projection = np.linalg.qr(square)[0].T
  return projection.T if columns < rows else projection


def embeddings(
    codebooks: Float[np.ndarray, 'K V D'],
    projection: Float[np.ndarray, 'D W'],
) -> dict[str, Float[np.ndarray, 'rows W']]:
  """What `Embedding` starts from.

  The root mean square of the first codebook's vectors becomes 1; later ones
  keep their size relative to it.
  """
  projected = codebooks / _sizes(codebooks)[0] @ projection
  slots, vocabulary, width = projected.shape
  # The last K rows stand for positions that hold no frame.
  table = np.zeros((slots * vocabulary + slots, width))
  table[:-slots] = projected.reshape(-1, width)
  return {'table': table.astype(np.float32)}


def classifiers(
    codebooks: Float[np.ndarray, 'K V D'],
    projection: Float[np.ndarray, 'D W'],
) -> Float[np.ndarray, 'K W V']:
  """Each slot's classifier: its vectors' directions, all of one small scale."""
  kernel = _CLASSIFIERS * (codebooks / _sizes(codebooks)) @ projection
  return kernel.transpose(0, 2, 1).astype(np.float32)


def _sizes(codebooks):
  """Root mean squares [K, 1, 1]."""
  sizes = np.sqrt(np.mean(np.square(codebooks), axis=(1, 2), keepdims=True))
  return np.maximum(sizes, 1e-12)
