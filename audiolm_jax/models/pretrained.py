"""Weights from elsewhere as models for people: the classes that ours have."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from audiolm_jax import interop
from audiolm_jax.interop import csm
from audiolm_jax.interop import musicgen
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import segment_lm
from audiolm_jax.models import token_lm
from audiolm_jax.tokenizers import codec as codec_lib


@dataclasses.dataclass(frozen=True)
class MusicGenLM(token_lm.TokenLM):
  """MusicGen's decoder, with what makes contexts of texts.

  Attributes:
    texts: the whole model.
    text_variables: its variables.
  """

  texts: musicgen.MusicGen | None = None
  text_variables: Any = None

  def contexts(
      self,
      ids: Int[Array, 'B S'],
      lengths: Int[Array, 'B'] | None = None,
  ) -> dict[str, Any]:
    """Texts as the options `context` and `null_context` of `generate`.

    Args:
      ids: of T5's vocabulary.
      lengths: of the rows; S for all if not given.

    Raises:
      ValueError: for ids or lengths out of range.
    """
    ids = np.asarray(ids)
    lengths = rows_lib.lengths(lengths, ids.shape, 'ids')
    states = self.texts.encode_text(self.text_variables, ids, lengths)
    context = self.texts.context(self.text_variables, states, lengths)
    return {
        'context': context,
        'null_context': self.texts.null_context(context),
    }


def load(directory: str | os.PathLike) -> Any:
  """The model of a directory that `interop.load_pretrained` reads.

  Returns:
    An AudioTokenizer for a codec, a SegmentLM for CSM, and a TokenLM for every
    other language model; those of audio have their `tokenizer`.

  Raises:
    interop.PretrainedError: naming what is missing, damaged or does not fit.
  """
  model, variables = interop.load_pretrained(directory)
  variables = jax.tree.map(jnp.asarray, variables)
  if isinstance(model, codec_lib.Codec):
    return audio_tokenizer.AudioTokenizer(model, variables)
  decoder, params = model.decoder, variables['params']
  if not hasattr(model, 'codec'):
    return token_lm.TokenLM(decoder, params, None)
  tokenizer = audio_tokenizer.AudioTokenizer(model.codec, variables['codec'])
  shared = decoder, params, tokenizer.spec.frame_rate, tokenizer
  if isinstance(model, csm.Csm):
    return segment_lm.SegmentLM(*shared)
  if isinstance(model, musicgen.MusicGen):
    return MusicGenLM(*shared, model, variables)
  return token_lm.TokenLM(*shared)
