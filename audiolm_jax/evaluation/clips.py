"""The held-out clips that `bits.Bits` scores, and the models beside it.

To add a source of clips: a dataclass with the attributes and methods of
`TokenClips`, whose `open` gives a `base.Clips`, and a line in CLIPS.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Annotated, Any
import zlib

from jaxtyping import Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import audio_crops
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import corpora
from audiolm_jax.data import pipeline
from audiolm_jax.data import text_and_tokens
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.decoders import of_latents
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import baselines
from audiolm_jax.evaluation import waveform_baselines
from audiolm_jax.evaluation import world_clips

# Seconds that clips of audio are padded to, and clips of each length scored at
# once.
_BUCKETS = ((1.0, 8), (2.0, 4), (4.0, 2))
# Training clips that the linear baseline is fitted to.
_FITTED = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenClips:
  """Clips of a token cache, for a model of frames of codes or latents.

  A decoder with conditions is given those of the whole clip, also where the clip
  is cut. Baselines are count-based: their counts come from the split 'train', and
  their smoothing is tuned on 'validation', of the same languages. They have no
  conditions.

  Attributes:
    cache: directory of the token cache; None for that of training's data. The
      model is of its first codebooks, or of its latents, which are normalised
      by the model's own moments.
    split: which clips.
    languages: which; empty for all.
    limit: only the first so many clips.
    max_frames: longer clips are cut to their beginning; None cuts none.
    vectors: folder of the clips' vectors, ID.npy [E], for a condition of them.
    tokenizer_hash: the hash that the cache must have; None takes any.
  """

  cache: Annotated[str, config.Path()] | None = None
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  max_frames: config.Positive | None = None
  vectors: Annotated[str, config.Path()] | None = None
  tokenizer_hash: str | None = None

  # The streams of decoders that score such clips, and whether there are models
  # beside them.
  streams = ('frames',)
  has_baselines = True

  def with_data(self, source: Any) -> 'TokenClips':
    """These clips, of the cache of `source` (config.data) if they name none."""
    return evaluation_base.with_cache(self, source)

  def open(self, decoder: Any, rate: float) -> evaluation_base.Clips:
    """The clips for a decoder of so many frames a second.

    Raises:
      encoding.TokensError: for a cache that doesn't fit.
      config.ConfigError: if there is no cache, the decoder's vocabularies or
        dimension are not the cache's, or it has conditions that clips don't
        have.
    """
    del rate
    need_cache(self)
    return _TokenClips(self, decoder)


def numbers(
    clips: evaluation_base.Clips, batch: Mapping[str, Any]
) -> tuple[list[str], Int[np.ndarray, 'B']]:
  """The ids of a batch's clips, '' for none, and a number of each.

  Draws go by it: the same at every evaluation, in every run, beside any others.
  """
  items = [clips.item(i) if i >= 0 else '' for i in batch['id']]
  return items, np.array([zlib.crc32(x.encode()) for x in items], np.uint32)


def need_cache(clips: Any) -> None:
  """Refuses clips of a token cache that name none."""
  if clips.cache is None:
    raise config.ConfigError(
        'clips.cache = None: config.data has no cache to take; give one.'
    )


class _TokenClips(evaluation_base.Clips):

  def __init__(self, settings, decoder):
    self._settings = settings
    self._cache = self._open(settings.split)
    self._conditions = clip_conditions.ConditionSampler(
        {name: module.source for name, module in decoder.conditions.items()},
        self._cache,
        settings.vectors,
    )
    self._indices = self._cache.select(settings.languages, settings.limit)
    where = f'the token cache {settings.cache}'
    self._sizes: tuple[int, ...] = ()
    if isinstance(decoder, of_latents.OfLatents):
      decoder.check_spec(self._cache.header.spec, where)
      self._kept = {'moments': decoder.moments}
      return
    self._sizes = tuple(decoder.vocabularies)
    self._kept = {'codebooks': len(self._sizes)}
    available = self._cache.vocabularies
    if available[: len(self._sizes)] != self._sizes:
      raise config.ConfigError(
          f'config.objective.decoder.vocabularies = {self._sizes}, but {where}'
          f' has {available or "continuous tokens"}.'
      )

  def _open(self, split):
    return token_cache.TokenCache(
        self._settings.cache, split, self._settings.tokenizer_hash
    )

  def _codes(self, cache, index):
    return cache[index].codes[:, : len(self._sizes)]

  def batches(self):
    for batch in token_crops.whole_clips(
        self._cache,
        indices=self._indices,
        max_frames=self._settings.max_frames,
        **self._kept,
    ):
      conditions = self._conditions(
          batch['id'], frames=self._settings.max_frames
      )
      yield {**batch, **conditions}

  def item(self, index):
    return self._cache[index].factors['id']

  @functools.cached_property
  def _counts(self) -> baselines.Baselines:
    splits = []
    for split in ('train', 'validation'):
      cache = self._open(split)
      chosen = cache.select(self._settings.languages)
      splits.append([self._codes(cache, i) for i in chosen])
    return baselines.fit(*splits, self._sizes)

  def baselines(self, index):
    codes = self._codes(self._cache, index)[: self._settings.max_frames]
    bits = self._counts.bits(codes)
    return {f'{name}/': value for name, value in bits.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClips:
  """Clips of a token cache with their texts, for a model of segments.

  Speech that follows its text is scored given the text: of the same codes,
  `TokenClips` scores what a model of speech alone makes.

  Attributes:
    cache: directory of the token cache, with texts; None for that of training's
      data. The model is of its first codebooks.
    split: which clips.
    languages: which; empty for all.
    limit: only the first so many clips.
    frames: clips of more are left out.
    text_bytes: longer texts are cut to their beginning.
    batch_size: clips that are scored at once.
    tokenizer_hash: the hash that the cache must have; None takes any.
  """

  cache: Annotated[str, config.Path()] | None = None
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  frames: config.Positive = 256
  text_bytes: config.Positive = 128
  batch_size: config.Positive = 16
  tokenizer_hash: str | None = None

  streams = ('text', 'speech')
  has_baselines = False

  def with_data(self, source: Any) -> 'TextClips':
    """These clips, of the cache of `source` (config.data) if they name none."""
    return evaluation_base.with_cache(self, source)

  def open(self, decoder: Any, rate: float) -> evaluation_base.Clips:
    """The clips for a decoder of segments.

    Raises:
      encoding.TokensError: for a cache that doesn't fit.
      config.ConfigError: if there is no cache.
    """
    del rate
    need_cache(self)
    names = {f.name for f in dataclasses.fields(text_and_tokens.TextAndTokens)}
    fields = {k: v for k, v in vars(self).items() if k in names}
    source = text_and_tokens.TextAndTokens(
        codebooks=len(decoder.slots('speech')), **fields
    )
    return _TextClips(source, self.batch_size)


class _TextClips(evaluation_base.Clips):

  def __init__(self, source, batch_size):
    self._source, self._batch_size = source, batch_size
    self._cache, _ = source.select()

  def batches(self):
    return text_and_tokens.whole_clips(self._source, self._batch_size)

  def item(self, index):
    return self._cache[index].factors['id']

  def baselines(self, index):
    del index
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioClips:
  """Clips of a corpus, for a model of samples.

  Baselines are FLAC, by the size of its frames, and linear prediction fitted to
  the split 'train' of the same languages. All code every sample of a clip on the
  model's grid, given the clip's past only. Comparisons are of one grid at one
  sample rate.

  Attributes:
    corpus: a name that `data.load_corpus` knows.
    split: which clips.
    languages: which; empty for all.
    limit: at most so many clips, evenly spaced.
    max_seconds: longer clips are cut to their beginning.
  """

  corpus: corpora.Name = 'asterisk_prompts'
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  max_seconds: Annotated[float, config.Range(min=0.1)] = 8.0

  streams = ('samples',)
  has_baselines = True

  def open(self, decoder: Any, rate: float) -> evaluation_base.Clips:
    """The clips for a decoder of so many samples a second.

    Raises:
      config.ConfigError: for a model with conditions, which clips don't have,
        or a corpus that isn't built.
    """
    stack = decoder.stack
    if stack.film or stack.local:
      raise config.ConfigError(
          f'evaluator of bits a sample: the stack has film = {stack.film} and'
          f' local = {stack.local}, but clips come without conditions.'
      )
    return _AudioClips(self, decoder, round(rate))


class _AudioClips(evaluation_base.Clips):

  def __init__(self, settings, decoder, rate):
    self._settings = settings
    self._decoder = decoder
    self._rate = rate
    self._corpus = self._open(settings.split)
    self._indices = self._chosen(self._corpus, settings.limit)

  def _open(self, split):
    return data.load_corpus(
        self._settings.corpus, split, self._settings.languages
    )

  def _chosen(self, corpus, limit):
    """Indices of clips that have a sample, evenly spaced."""
    indices = np.flatnonzero(corpus.seconds() * self._rate >= 1)
    return indices[evaluation_base.spaced(len(indices), limit)]

  def _read(self, corpus, index):
    """A clip [T, C] float32, cut."""
    audio = audio_crops.read(
        corpus, int(index), self._rate, self._decoder.channels
    )
    return audio[: round(self._settings.max_seconds * self._rate)]

  def _grid(self, audio):
    return np.asarray(waveform_heads.to_grid(audio, self._decoder.bits))

  def batches(self):
    limit = self._settings.max_seconds
    seconds = np.minimum(self._corpus.seconds()[self._indices], limit)
    bounds, sizes = pipeline.doubled(_BUCKETS, limit)
    bounds = [round(self._rate * bound) for bound in bounds]
    num_samples = np.ceil(seconds * self._rate).astype(int)
    for bound, size, members in pipeline.buckets(num_samples, bounds, sizes):
      indices = self._indices[members]
      rows = [self._read(self._corpus, i)[:bound] for i in indices]
      empty = size - len(rows)
      yield {
          'audio': pipeline.pad(rows, size, bound),
          'num_samples': np.int32([*map(len, rows), *[0] * empty]),
          'id': np.int32([*indices, *[-1] * empty]),
      }

  def item(self, index):
    return self._corpus.factors(int(index))['id']

  @functools.cached_property
  def _linear(self) -> waveform_baselines.Linear:
    corpus = self._open('train')
    clips = [
        self._grid(self._read(corpus, i)) for i in self._chosen(corpus, _FITTED)
    ]
    return waveform_baselines.fit_linear(clips, self._decoder.bits)

  @functools.cached_property
  def _bits(self) -> dict[int, dict[str, float]]:
    bits, rate = self._decoder.bits, self._rate
    result = {}
    for index in self._indices:
      samples = self._grid(self._read(self._corpus, index))
      result[index] = {
          'linear/': self._linear.bits_of(samples).sum(),
          'flac/': waveform_baselines.flac_bits(samples, bits, rate),
      }
    return result

  def baselines(self, index):
    return self._bits[index]


CLIPS = {
    'audio': AudioClips,
    'text': TextClips,
    'tokens': TokenClips,
    'world_texts': world_clips.WorldTextClips,
}
