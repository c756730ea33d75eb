"""Weights from elsewhere as models for people: the classes that ours have."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from audiolm_jax import interop
from audiolm_jax.interop import csm
from audiolm_jax.interop import musicgen
from audiolm_jax.interop import stable_audio
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import segment_lm
from audiolm_jax.models import token_lm
from audiolm_jax.processes import guidance as guidance_lib
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


@dataclasses.dataclass(frozen=True)
class StableAudioLM(flow_lm.FlowLM):
  """stable-audio's decoder, with what makes contexts of texts and seconds.

  `generate` and `generation_flops` are those of a FlowLM. The conditions are

      text     ids of T5's vocabulary, with the mark of the end; None for no text
      seconds  (at which the clip starts, of its whole recording); None for 0 and
               the length of a row in training

  Guidance mixes in predictions without text and seconds among what is attended
  to; the seconds in the token stay, as in diffusers. T5 is not in the FLOPs.

  Attributes:
    whole: the whole model.
    variables: its variables, those of the decoder and the codec left out.
  """

  whole: stable_audio.StableAudio | None = None
  variables: Any = None

  @property
  def seconds(self) -> float:
    """The length of a row in training, which `generate` has no need to keep."""
    return self.whole.frames / self.frame_rate

  def _contexts(self, conditions, rows, guidance, negative):
    """Of ids and seconds, and for guidance what those it leads away from become."""
    if isinstance(guidance, guidance_lib.Mixture):
      raise ValueError(
          f'{guidance}: the text and the seconds of this model act together'
      )
    if guidance is None and negative:
      raise ValueError('negative conditions do nothing without guidance')
    context = self._context(conditions, rows)
    if guidance is None:
      return (context,), None
    if negative:
      return (context,), self._context(negative, rows)
    return (context,), self.whole.null_context(context)

  def _context(self, conditions, rows):
    """Of ids and seconds."""
    conditions = dict(conditions or {})
    unknown = sorted(set(conditions) - {'text', 'seconds'})
    if unknown:
      raise ValueError(f"conditions {unknown}: expected 'text' and 'seconds'")
    for name, values in conditions.items():
      if len(values) != rows:
        raise ValueError(f'{name}: {len(values)} values for {rows} rows')
    ids, lengths = self._ids(conditions.get('text', [None] * rows))
    seconds = [
        (0.0, self.seconds) if pair is None else pair
        for pair in conditions.get('seconds', [None] * rows)
    ]
    seconds = np.asarray(seconds, np.float32)
    if seconds.shape != (rows, 2) or not np.isfinite(seconds).all():
      raise ValueError(f'seconds {seconds.tolist()}: expected pairs of numbers')
    return _context(self.whole, self.variables, ids, lengths, seconds)

  def _ids(self, texts):
    """Texts as ids [B, S] and lengths [B]."""
    longest = self.whole.text_length
    ids = np.zeros((len(texts), longest), np.int32)
    lengths = np.zeros(len(texts), np.int32)
    for i, text in enumerate(texts):
      if text is None:
        continue
      text, vocabulary = np.asarray(text), self.whole.text.vocabulary
      if text.ndim != 1 or text.dtype.kind not in 'iu' or len(text) > longest:
        raise ValueError(
            f'text {i} is {text.dtype} {text.shape}: expected at most'
            f" {longest} ids of T5's vocabulary"
        )
      if ((text < 0) | (text >= vocabulary)).any():
        raise ValueError(f'text {i} has ids outside of 0 to {vocabulary - 1}')
      ids[i, : len(text)], lengths[i] = text, len(text)
    return ids, lengths


@functools.partial(jax.jit, static_argnames='whole')
def _context(whole, variables, ids, lengths, seconds):
  """See `StableAudio.context`."""
  return whole.context(variables, ids, lengths, seconds)


def load(directory: str | os.PathLike) -> Any:
  """The model of a directory that `interop.load_pretrained` reads.

  Returns:
    An AudioTokenizer for a codec, a SegmentLM for CSM, a FlowLM for stable-audio
    and a TokenLM for every other language model; those of audio have their
    `tokenizer`.

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
  if isinstance(model, stable_audio.StableAudio):
    rest = {name: variables[name] for name in ('conditions', 'text')}
    return StableAudioLM(*shared, model, rest)
  if isinstance(model, csm.Csm):
    return segment_lm.SegmentLM(*shared)
  if isinstance(model, musicgen.MusicGen):
    return MusicGenLM(*shared, model, variables)
  return token_lm.TokenLM(*shared)
