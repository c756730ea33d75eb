"""Every way in which a trained model makes audio that is then listened to."""

from collections.abc import Iterator, Sequence
import dataclasses
import os
from typing import Annotated, Any, NamedTuple

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.audio import resample
from audiolm_jax.data import pipeline
from audiolm_jax.data import text_and_tokens
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import synthesiser
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import representations
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import kinds
from audiolm_jax.models import loading
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.models import segment_lm
from audiolm_jax.tokenizers import base as tokenizers_base


class Clip(NamedTuple):
  """Audio, and what is said in it.

  Attributes:
    item: id, stable across runs.
    text: what is said; '' where that is not known.
    audio: in [-1, 1].
    sample_rate: in Hz.
  """

  item: str
  text: str
  audio: Float[np.ndarray, 'T C']
  sample_rate: int

  @property
  def seconds(self) -> float:
    """How long it lasts."""
    return len(self.audio) / self.sample_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speaker:
  """How a language model of an audio tokenizer's codes speaks.

  Attributes:
    tokenizer: directory of the tokenizer; None for where it was when the cache
      was filled. It must be the one that made the cache.
    cache: the token cache; None for that of training's data.
    sampler: how codes are drawn.
    guidance: how closely conditions are followed, 1 for as closely as in
      training (see `generation.generate`); None for no guidance.
    seed: of all draws.
    batch_size: clips that are made at once.
  """

  tokenizer: Annotated[str, config.Path()] | None = None
  cache: Annotated[str, config.Path()] | None = None
  sampler: generation.Sampler = generation.Sampler()
  guidance: config.NonNegative | None = None
  seed: config.Count = 0
  batch_size: config.Positive = 16

  def with_data(self, source: Any) -> 'Speaker':
    """Itself, with the cache of `source` (config.data) if it names none."""
    return evaluation_base.with_cache(self, source)

  def load(self, module: Any, told: bool) -> audio_tokenizer.AudioTokenizer:
    """The tokenizer of a language model that is to speak.

    Args:
      module: the model's: a decoder of frames, or of the segments 'text' and
        'speech'.
      told: whether it is told what to say.

    Raises:
      ConfigError: for a model that can't, or of other codes than the
        tokenizer's, where there is no cache to say which that is, and for
        guidance where there is nothing to follow.
      ModelError: where it is not the one that made the cache.
    """
    vocabularies = spoken(module, told)
    if self.guidance is not None:
      why = None
      if 'frames' not in module.streams:
        why = 'a model of segments has none'
      elif not told:
        why = 'who is told nothing follows nothing'
      if why:
        raise config.ConfigError(
            f'speaker.guidance = {self.guidance:g}: {why}.'
        )
    if self.cache is None:
      raise config.ConfigError(
          'speaker.cache = None: config.data has no cache that says which'
          ' tokenizer speaks its codes; give one.'
      )
    return representations.tokenizer_of(
        vocabularies, self.cache, self.tokenizer
    )

  def says(
      self,
      model: Any,
      tokenizer: audio_tokenizer.AudioTokenizer,
      clips: Sequence[Clip],
  ) -> Iterator[Clip]:
    """The texts of some clips, each as long as the clip, by a model.

    Args:
      model: a `TokenLM` with a condition 'text', or a `SegmentLM` of 'text' and
        'speech'. Nothing tells it what to say where a clip has no text.
      tokenizer: of its codes, as `load` gives it.
      clips: what to say.
    """
    spec = tokenizer.spec
    frames = [
        int(spec.frames(round(c.seconds * spec.sample_rate))) for c in clips
    ]
    most = max(frames, default=0)
    for number, start in enumerate(range(0, len(clips), self.batch_size)):
      part = slice(start, start + self.batch_size)
      missing = self.batch_size - len(frames[part])
      lengths = np.int32([*frames[part], *[0] * missing])
      texts = [*(clip.text for clip in clips[part]), *[''] * missing]
      # Seeds of one run's batches are no other run's.
      seed = (self.seed << 16) + number
      codes = self._codes(model, texts, lengths, most, seed)
      for clip, row, length in zip(clips[part], codes, lengths, strict=False):
        audio = decoded(tokenizer, row[:length])
        yield clip._replace(audio=audio, sample_rate=spec.sample_rate)

  def _codes(
      self, model, texts, lengths, most, seed
  ) -> Int[np.ndarray, 'B F K']:
    """Codes of all rows, `most` frames each; those past a row's are any."""
    if isinstance(model, segment_lm.SegmentLM):
      return _segments(model, texts, lengths, most, seed, self.sampler)
    options = {'seed': seed, 'sampler': self.sampler}
    if any(texts):
      options['conditions'] = {'text': [text or None for text in texts]}
      if self.guidance is not None:
        options['guidance'] = self.guidance
    slots = len(model.decoder.vocabularies)
    prompt = np.zeros((len(texts), 0, slots), np.int32)
    return model.generate(prompt, most, **options)


def spoken(module: Any, told: bool) -> tuple[int, ...]:
  """Vocabularies of the codes that a language model speaks.

  Args:
    module: the model's.
    told: whether it is told what to say.

  Raises:
    ConfigError: for a model that does not speak, or can not be told.
  """
  kind = kinds.Description(module).kind
  if kind == 'segments':
    labels = list(module.streams)
    if sorted(labels) != ['speech', 'text']:
      raise config.ConfigError(
          f"a model of the segments {labels}: expected 'text' and 'speech'."
      )
    return tuple(module.vocabularies[k] for k in module.slots('speech'))
  if kind != 'tokens':
    raise config.ConfigError(
        f'a {type(module).__name__} speaks no texts: expected a language model'
        " of frames, or of the segments 'text' and 'speech'."
    )
  if told and 'text' not in module.conditions:
    raise config.ConfigError(
        'the decoder has no condition called text, so that it can not be told'
        f' what to say: it has {sorted(module.conditions)}.'
    )
  return tuple(module.vocabularies)


def _segments(model, texts, lengths, most, seed, sampler):
  """See `Speaker._codes`."""
  said = [text_and_tokens.text_codes(text) for text in texts]
  counts = np.int32([len(row) for row in said])
  slots = len(model.decoder.slots('speech'))
  given = {
      'text': pipeline.pad(said, len(said), max(1, counts.max())),
      'speech': np.zeros((len(said), most, slots), np.int32),
  }
  made = model.generate(
      given,
      {'text': counts, 'speech': lengths},
      {'text': counts, 'speech': np.zeros_like(lengths)},
      seed=seed,
      sampler=sampler,
  )
  return made['speech']


def encoded(
    tokenizer: audio_tokenizer.AudioTokenizer, clip: Clip
) -> tokenizers_base.Tokens:
  """A clip's tokens, [1, F, K] or [1, F, D]."""
  audio = resample.remix(clip.audio, tokenizer.spec.channels)
  rate = tokenizer.spec.sample_rate
  return tokenizer.encode(
      resample.resample(audio, clip.sample_rate, rate)[None]
  )


def decoded(
    tokenizer: audio_tokenizer.AudioTokenizer, codes: Int[np.ndarray, 'F K']
) -> Float[np.ndarray, 'T C']:
  """The audio of codes of a tokenizer's first slots."""
  samples = np.array([tokenizer.spec.samples(len(codes))], np.int32)
  tokens = tokenizers_base.Tokens(codes=codes[None], num_samples=samples)
  return tokenizer.decode(tokens)[0][0]


def reconstructed(
    tokenizer: audio_tokenizer.AudioTokenizer,
    clip: Clip,
    codebooks: int | None = None,
) -> Clip:
  """A clip through a tokenizer and back.

  Args:
    tokenizer: any.
    clip: of any rate.
    codebooks: how many of the codes of a frame are kept, from the first; None
      for all.
  """
  tokens = encoded(tokenizer, clip)
  if tokens.codes is not None:
    tokens = tokens.replace(codes=tokens.codes[..., :codebooks])
  audio, _ = tokenizer.decode(tokens)
  return clip._replace(audio=audio[0], sample_rate=tokenizer.spec.sample_rate)


def of_corpus(corpus: Any, indices: Sequence[int]) -> list[Clip]:
  """Clips of a corpus, or of a folder of audio files, with their texts.

  Raises:
    ConfigError: for a clip without a text.
  """
  clips = []
  for i in indices:
    clip = corpus[int(i)]
    if not clip['text']:
      raise config.ConfigError(
          f'clip {clip["id"]} of {corpus.name} has no text to be held against.'
      )
    clips.append(
        Clip(clip['id'], clip['text'], clip['audio'], clip['sample_rate'])
    )
  return clips


def of_world(clip: clips_lib.Clip) -> Clip:
  """A clip of speech_world with its audio."""
  return Clip(clip.id, clip.text, clip.audio()[:, None], synthesiser.RATE)


def load_judge(path: str | os.PathLike) -> recogniser_lib.PhoneRecogniser:
  """The recogniser of a directory.

  Raises:
    ModelError: if it holds none.
  """
  judge = loading.load(path)
  if not isinstance(judge, recogniser_lib.PhoneRecogniser):
    raise loading.ModelError(
        f'{path} holds a {type(judge).__name__}, not a recogniser of phones:'
        ' configs/judge/recogniser.py trains one.'
    )
  return judge
