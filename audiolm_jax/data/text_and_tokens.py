"""Batches of clips with their texts: what is said, and how it sounds."""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Annotated

import numpy as np

from audiolm_jax import config
from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import base as data_base
from audiolm_jax.data import pipeline
from audiolm_jax.data import token_cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextAndTokens:
  """Whole clips of a token cache as two segments, 'text' and 'speech'.

  `codes/text` [B, T, 1] are the bytes (UTF-8) of what is said,
  `codes/speech` [B, F, K] the clip's codes; both are padded with zeros, and
  `num_frames/text` and `num_frames/speech` say where they end. Clips of more than
  `frames` are left out, as their text would not be that of a part of them.

  Attributes:
    cache: directory of the token cache, or of token files, with texts.
    split: of the cache.
    languages: which; empty for all.
    codebooks: how many of the codes of a frame, from the first; None for as many
      as the model of a run has, or else for all.
    frames: length of a row's speech.
    text_bytes: length of a row's text; longer ones are cut.
    limit: only the first so many clips (of those languages).
    tokenizer_hash: the hash that the cache must have; None takes any.
    workers: reading processes; 0 reads in a thread.
    buffer: batches read ahead (per worker).
  """

  cache: Annotated[str, config.Path()]
  split: str = 'train'
  languages: tuple[str, ...] = ()
  codebooks: Annotated[int | None, config.Range(min=1)] = None
  frames: config.Positive = 256
  text_bytes: config.Positive = 128
  limit: Annotated[int | None, config.Range(min=1)] = None
  tokenizer_hash: str | None = None
  workers: config.Count = 0
  buffer: config.Positive = 4

  @property
  def lengths(self) -> dict[str, int]:
    """How long rows of each stream are."""
    return {'text': self.text_bytes, 'speech': self.frames}

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
  ) -> data_base.BatchSource:
    """See `CropSource`; raises TokensError for a cache that doesn't fit."""
    cache, chosen = self.select()
    visits = np.zeros(len(cache), int)
    visits[chosen] = 1
    if not visits.any():
      raise encoding.TokensError(
          f'No clip of {self.cache} {self.split} is as short as'
          f' config.data.frames = {self.frames}.'
      )
    return pipeline.CropSource(
        functools.partial(clip, self, cache),
        visits,
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        workers=self.workers,
        buffer=self.buffer,
    )

  def select(self) -> tuple[token_cache.TokenCache, np.ndarray]:
    """The cache, and the indices of its clips that are read.

    Raises:
      encoding.TokensError: for a cache that doesn't fit.
    """
    cache = token_cache.open_cache(self)
    if not cache.vocabularies:
      raise config.ConfigError(
          f'config.data.cache = {self.cache!r} has continuous tokens: texts go'
          ' with codes.'
      )
    chosen = cache.select(self.languages, self.limit)
    return cache, chosen[cache.frames[chosen] <= self.frames]


def whole_clips(
    settings: TextAndTokens, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Every clip once, in batches of one shape.

  Yields:
    What `open` gives; the rows that fill up the last batch are empty and have
    the id -1.
  """
  cache, chosen = settings.select()
  for start in range(0, len(chosen), batch_size):
    members = chosen[start : start + batch_size]
    rows = [
        {**clip(settings, cache, i, None), 'id': np.int32(i)} for i in members
    ]
    empty = {k: np.zeros_like(v) for k, v in rows[0].items()}
    rows += [{**empty, 'id': np.int32(-1)}] * (batch_size - len(rows))
    yield {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def clip(
    settings: TextAndTokens,
    cache: token_cache.TokenCache,
    index: int,
    rng: np.random.Generator | None,
) -> dict[str, np.ndarray]:
  """One row."""
  del rng  # Nothing is cropped.
  example = cache[index]
  rows = {
      'text': (
          text_codes(example.factors.get('text', '')),
          settings.text_bytes,
      ),
      'speech': (example.codes[:, : settings.codebooks], settings.frames),
  }
  segments = {}
  for label, (codes, length) in rows.items():
    codes = codes[:length]
    segments[f'codes/{label}'] = pipeline.pad([codes], 1, length)[0]
    segments[f'num_frames/{label}'] = np.int32(len(codes))
  return segments


def text_codes(text: str) -> np.ndarray:
  """A text as codes [T, 1] of a vocabulary of 256: its bytes."""
  return np.frombuffer(text.encode(), np.uint8).astype(np.int32)[:, None]
