"""What models of latents share, whatever draws them."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Self

from audiolm_jax.decoders import of_latents
from audiolm_jax.models import audio_tokenizer

# Of conditions: by name, one for each row; None for none.
Values = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class LatentsLM:
  """A decoder of latents with its parameters.

  Attributes:
    decoder: the model, with the moments of its latents.
    params: its parameters.
    frame_rate: frames a second; None where they are no time.
    tokenizer: of its frames, where the two came in one directory.
  """

  decoder: of_latents.OfLatents
  params: Any
  frame_rate: float | None
  tokenizer: audio_tokenizer.AudioTokenizer | None = None

  def with_tokenizer(self, tokenizer: audio_tokenizer.AudioTokenizer) -> Self:
    """The same model, with what speaks its frames.

    Raises:
      ValueError: if the tokenizer's latents have another dimension.
    """
    wanted, found = self.decoder.dimension, tokenizer.spec.dimension
    if wanted != found:
      raise ValueError(
          f'speaks latents of {wanted} dimensions, but the tokenizer has'
          f' {found or "codes"}'
      )
    return dataclasses.replace(self, tokenizer=tokenizer)
