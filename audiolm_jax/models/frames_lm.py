"""What models of token frames share, whatever draws their codes."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Literal, Self

import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import of_frames
from audiolm_jax.decoders import ranges
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring

# Of conditions: by name, one for each row; None for none.
Values = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class FramesLM:
  """A decoder of frames with its parameters.

  Attributes:
    decoder: the model.
    params: its parameters.
    frame_rate: frames a second; None where they are no time.
    tokenizer: of its frames, where the two came in one directory.
  """

  decoder: of_frames.OfFrames
  params: Any
  frame_rate: float | None
  tokenizer: audio_tokenizer.AudioTokenizer | None = None

  def _contexts(self, conditions, rows, options):
    """Options of `generation` with what conditions have become."""
    return scoring.contexts(
        self.decoder, self.params, conditions, rows, options
    )

  def cast(self, kind: Literal['bfloat16', 'int8']) -> Self:
    """The same model with weights in fewer bits; see `generation.cast`."""
    return dataclasses.replace(self, params=generation.cast(self.params, kind))

  def with_tokenizer(self, tokenizer: audio_tokenizer.AudioTokenizer) -> Self:
    """The same model, with what speaks its frames.

    Raises:
      ValueError: if the tokenizer's first slots have other vocabularies.
    """
    tokenizer.check_speaks(self.decoder.vocabularies)
    return dataclasses.replace(self, tokenizer=tokenizer)

  def _check_known(self, codes, known, num_frames):
    """Host arrays; `generation` checks the codes that are known."""
    codes, known = np.asarray(codes), np.asarray(known)
    if known.dtype != bool:
      raise ValueError(f'known is {known.dtype}: expected booleans')
    if codes.ndim == 3:
      num_frames = rows_lib.lengths(num_frames, codes.shape, 'codes')
    return codes, known, num_frames

  def _check(self, codes, num_frames):
    """Host arrays, checked: JAX would clip what is out of range silently."""
    codes = np.asarray(codes)
    vocabularies = self.decoder.vocabularies
    if codes.ndim == 3:
      num_frames = rows_lib.lengths(num_frames, codes.shape, 'codes')
    ranges.check_frames(codes, num_frames, vocabularies)
    return codes.astype(np.int32), num_frames
