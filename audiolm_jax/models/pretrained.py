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
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import latent_heads
from audiolm_jax.interop import csm
from audiolm_jax.interop import musicgen
from audiolm_jax.interop import pocket_tts
from audiolm_jax.interop import stable_audio
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import latent_lm
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
    _check_rows(conditions, rows)
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


@dataclasses.dataclass(frozen=True)
class PocketTtsLM(latent_lm.LatentLM):
  """Pocket-TTS's decoder, with what makes contexts of texts and voices.

  The conditions are

      text   ids of its vocabulary, at least one
      voice  latents [V, L] as its tokenizer gives them; None for none

  What is not given of how frames are drawn is as Kyutai has it: one jump, a
  temperature of 0.7, and rows end where the model's logit is above -4. Theirs go on
  for some frames after that (`frames_after_eos`), and not before the seventh.
  Voices and texts are not in the FLOPs.

  Attributes:
    whole: the whole model.
    variables: its variables.
  """

  whole: pocket_tts.PocketTts | None = None
  variables: Any = None

  def session(self, prompt, frames=None, *, conditions=None, **options):
    """See `LatentLM.session`; what stands before the frames stays in sight."""
    if options.get('sampler') is None:
      options['sampler'] = _POCKET_TTS
    prompt, _ = self._check(prompt, options.get('num_frames'))
    context = self._context(conditions or {}, len(prompt))
    if options.get('cache_length') is None and frames is not None:
      options['cache_length'] = max(frames, 1)
    before = context['prefix'].shape[1]
    options['sink_tokens'] = options.get('sink_tokens', 0) + before
    return super().session(prompt, frames, **options, context=context)

  def _context(self, conditions, rows):
    unknown = sorted(set(conditions) - {'text', 'voice'})
    if unknown or 'text' not in conditions:
      raise ValueError(
          f"conditions {sorted(conditions)}: expected 'text', and perhaps 'voice'"
      )
    _check_rows(conditions, rows)
    texts = [self._text(i, text) for i, text in enumerate(conditions['text'])]
    voices = conditions.get('voice', [None] * rows)
    voices = [self._voice(i, voice) for i, voice in enumerate(voices)]
    inputs = *_padded(texts), *_padded(voices)
    return _pocket_tts_context(self.whole, self.variables, *inputs)

  def _text(self, number, text):
    ids = np.asarray(text)
    if ids.ndim != 1 or ids.dtype.kind not in 'iu' or not len(ids):
      raise ValueError(
          f'text {number} is {ids.dtype} {ids.shape}: expected at least one id'
      )
    vocabulary = self.whole.before.vocabulary
    if ((ids < 0) | (ids >= vocabulary) | np.isin(ids, self.whole.marks)).any():
      raise ValueError(
          f'text {number} has ids outside of 0 to {vocabulary - 1}, or one of the'
          f' marks {self.whole.marks}'
      )
    return ids.astype(np.int32)

  def _voice(self, number, voice):
    width = self.decoder.dimension
    if voice is None:
      return np.zeros((0, width), np.float32)
    voice = np.asarray(voice)
    if voice.ndim != 2 or voice.shape[1] != width or voice.dtype.kind != 'f':
      raise ValueError(
          f'voice {number} is {voice.dtype} {voice.shape}: expected latents of'
          f' {width} dimensions'
      )
    if not np.isfinite(voice).all():
      raise ValueError(f'voice {number} is not finite')
    return voice.astype(np.float32)


def _check_rows(conditions, rows):
  """Refuses conditions of other than so many rows."""
  for name, values in conditions.items():
    if len(values) != rows:
      raise ValueError(f'{name}: {len(values)} values for {rows} rows')


# The likelihood of a logit of -4.
_POCKET_TTS = latent_heads.LatentSampler(
    temperature=0.7, threshold=float(1 / (1 + np.exp(4.0)))
)


def _padded(rows):
  """Rows of any lengths as one array, and the lengths."""
  lengths = np.array([len(row) for row in rows], np.int32)
  shape = len(rows), max(lengths, default=0), *rows[0].shape[1:]
  padded = np.zeros(shape, rows[0].dtype)
  for i, row in enumerate(rows):
    padded[i, : len(row)] = row
  return padded, lengths


@functools.partial(jax.jit, static_argnames='whole')
def _pocket_tts_context(whole, variables, *inputs):
  """See `PocketTts.context`."""
  return whole.context(variables, *inputs)


def _pocket_tts(whole, variables):
  """The model, with the moments that the weights hold."""
  mean, std = (
      np.asarray(variables['latents'][name], np.float64).tolist()
      for name in ('mean', 'std')
  )
  if min(std) <= 0:
    raise interop.PretrainedError(f'latent_std = {std}: expected more than 0')
  moments = moments_lib.Moments(tuple(mean), tuple(std))
  decoder = whole.decoder.clone(parent=None, name=None, moments=moments)
  return PocketTtsLM(
      decoder,
      variables['params'],
      whole.frame_rate,
      whole=whole,
      variables={'before': variables['before']},
  )


def load(directory: str | os.PathLike) -> Any:
  """The model of a directory that `interop.load_pretrained` reads.

  Returns:
    An AudioTokenizer for a codec, a SegmentLM for CSM, a FlowLM for stable-audio,
    a LatentLM for Pocket-TTS, and a TokenLM for every other language model; those
    of audio but Pocket-TTS have their `tokenizer`.

  Raises:
    interop.PretrainedError: naming what is missing, damaged or does not fit.
  """
  model, variables = interop.load_pretrained(directory)
  variables = jax.tree.map(jnp.asarray, variables)
  if isinstance(model, codec_lib.Codec):
    return audio_tokenizer.AudioTokenizer(model, variables)
  if isinstance(model, pocket_tts.PocketTts):
    return _pocket_tts(model, variables)
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
