"""Where a decoder's code embeddings and classifiers may start from."""

from typing import Any

from jaxtyping import Float
import numpy as np


def from_codebooks(
    codebooks: Float[np.ndarray, 'K V D'],
    width: int,
    embedding_scale: float = 1.0,
    head_scale: float = 0.1,
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
    embedding_scale: root mean square of the first codebook's vectors before
      they are projected; later codebooks keep their size relative to it.
    head_scale: the same of every slot's classifier.
    seed: of the projection.

  Returns:
    The part of the decoder's parameters that it sets.
  """
  slots, vocabulary, dimension = codebooks.shape
  rng = np.random.default_rng(seed)
  square = rng.normal(size=(max(width, dimension), min(width, dimension)))
  projection = np.linalg.qr(square)[0].T
  if width < dimension:
    projection = projection.T
  sizes = np.sqrt(np.mean(np.square(codebooks), axis=(1, 2), keepdims=True))
  sizes = np.maximum(sizes, 1e-12)
  embeddings = embedding_scale * codebooks / sizes[0] @ projection
  # The last K rows stand for positions that hold no frame.
  table = np.zeros((slots * vocabulary + slots, width))
  table[:-slots] = embeddings.reshape(-1, width)
  kernel = head_scale * (codebooks / sizes) @ projection
  return {
      'embedding': {'table': table.astype(np.float32)},
      'head': {'kernel': kernel.transpose(0, 2, 1).astype(np.float32)},
  }
