"""Language models of sequences of segments, with their parameters."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring


@dataclasses.dataclass(frozen=True)
class SegmentLM:
  """A model of segments with its parameters: what `audiolm_jax.load` returns.

  Attributes:
    decoder: the model.
    params: its parameters.
    frame_rate: frames a second of the segment that stands for audio.
    tokenizer: of that segment, where the two came in one directory.
  """

  decoder: segmented.Segmented
  params: Any
  frame_rate: float
  tokenizer: audio_tokenizer.AudioTokenizer | None = None

  def score(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
  ) -> scores_lib.Scores:
    """Log-probabilities of segments; compiles once for each shape.

    Raises:
      ValueError: if codes or lengths are out of range.
    """
    self.decoder.check(codes, num_frames)
    return scoring.score(self.decoder, self.params, (codes, num_frames))

  def bits_per_frame(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
  ) -> dict[str, Float[np.ndarray, 'B']]:
    """Bits a frame of each row's predicted segments (NaN for empty ones)."""
    streams = self.score(codes, num_frames).streams
    return {
        label: rows_lib.bits(stream.log_prob, np.asarray(num_frames[label]))
        for label, stream in streams.items()
    }

  def generate(
      self,
      given: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
      shown: dict[str, Int[Array, 'B']],
      *,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
  ) -> dict[str, Int[np.ndarray, 'B F K']]:
    """Fills the segments from their beginnings.

    Args:
      given: codes of each segment, padded to the length of the result.
      num_frames: frames of each row's segments, what is given included.
      shown: how many of them are given; what follows counts for nothing.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.

    Raises:
      ValueError: if not 0 <= shown <= lengths <= F, or for codes out of range
        that are shown.
    """
    masks = {}
    for label, codes in given.items():
      first, last = np.asarray(shown[label]), np.asarray(num_frames[label])
      wrong = (first < 0) | (first > last) | (last > codes.shape[1])
      if wrong.any():
        raise ValueError(
            f'{label}: {first} of {last} frames given, {codes.shape[1]} in all'
        )
      mask = np.arange(codes.shape[1])[:, None] < first[:, None, None]
      masks[label] = np.broadcast_to(mask, codes.shape)
    generated = generation.generate(
        self.decoder,
        self.params,
        given,
        masks,
        num_frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
    )
    return {label: np.asarray(c) for label, c in generated.codes.items()}
