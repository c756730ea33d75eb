"""Bits a frame of a token LM on whole held-out clips, and of its baselines."""

from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import Annotated

import jax
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import baselines
from audiolm_jax.models import token_lm
from audiolm_jax.objectives import lm as lm_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class LMBits:
  """Scores an LM, and count-based models beside it, on a token cache's clips.

  For each clip: `bits_per_frame` and `bits_per_frame_codebook_k`, weighted by
  frames; with baselines also `unigram/...` and `bigram/...`, whose counts come
  from the split 'train' and whose smoothing was tuned on 'validation', of the
  same languages. All score every code of every frame of a clip, but for the
  slots that a decoder of stages observes. A decoder with conditions is told
  them of the clip (the whole text of one that is cut); baselines are not.

  Attributes:
    cache: directory of the token cache. The LM models its first codebooks.
    split: which clips.
    languages: which; empty for all.
    limit: only the first so many clips.
    max_frames: longer clips are cut to their beginning; None cuts none.
    baselines: whether to score them too.
    vectors: see `token_crops.TokenCrops`.
    tokenizer_hash: the hash that the cache must have; None takes any.
  """

  cache: Annotated[str, config.Path()]
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  max_frames: config.Positive | None = None
  baselines: bool = False
  vectors: Annotated[str, config.Path()] | None = None
  tokenizer_hash: str | None = None

  def facts(self, key: str) -> list[config.Fact]:
    """What data and objective may also say; see `config.Fact`."""
    return token_cache.facts(self.cache, f'{key}.cache')

  def build(self, objective: lm_lib.LM) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      token_cache.CacheError: for a cache that doesn't fit.
      config.ConfigError: if the LM's vocabularies are not the cache's, or it
        has conditions that clips don't have.
    """
    return _Evaluator(self, objective.decoder)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings: LMBits, decoder):
    self._settings = settings
    self._decoder = decoder
    self._cache = self._open(settings.split)
    self._told = {k: m.source for k, m in decoder.conditions.items()}
    self._condition_sampler = clip_conditions.ConditionSampler(
        self._told, self._cache, settings.vectors
    )
    self._indices = self._cache.select(settings.languages, settings.limit)
    found = self._cache.vocabularies
    wanted = tuple(decoder.vocabularies)
    if found[: len(wanted)] != wanted:
      raise config.ConfigError(
          f'config.objective.decoder.vocabularies = {wanted}, but the token'
          f' cache {settings.cache} has {found}.'
      )

  def _open(self, split):
    return token_cache.TokenCache(
        self._settings.cache, split, self._settings.tokenizer_hash
    )

  @functools.cached_property
  def _baselines(self) -> baselines.Baselines:
    clips = {}
    for split in ('train', 'validation'):
      cache = self._open(split)
      clips[split] = [
          cache[i].codes[:, : len(self._decoder.vocabularies)]
          for i in cache.select(self._settings.languages)
      ]
    return baselines.fit(
        clips['train'], clips['validation'], self._decoder.vocabularies
    )

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    batches = token_crops.whole_clips(
        self._cache,
        indices=self._indices,
        codebooks=len(self._decoder.vocabularies),
        max_frames=self._settings.max_frames,
    )
    for batch in batches:
      told = self._condition_sampler(batch['id'])
      scores = token_lm.score(
          self._decoder,
          variables['lm']['params'],
          batch['codes'],
          batch['num_frames'],
          factors.unflatten(told, sorted(self._told)),
      )
      bits = -np.asarray(jax.device_get(scores.log_prob)) / math.log(2)
      rows = zip(
          batch['codes'], batch['num_frames'], batch['id'], bits, strict=True
      )
      for codes, length, index, row in rows:
        if not length:
          continue
        item = self._cache[index].factors['id']
        models = {'': row[:length]}
        if self._settings.baselines:
          found = self._baselines.bits(codes[:length])
          models |= {f'{name}/': value for name, value in found.items()}
        for prefix, value in models.items():
          yield from _scores(prefix, item, value, self._decoder.predicted)


def _scores(prefix, item, bits, slots):
  """The scores of one clip from its bits [F, K] under one model."""
  frames = len(bits)
  name = f'{prefix}bits_per_frame'
  total = bits[:, list(slots)].sum()
  yield evaluation_base.Score(name, item, float(total), float(frames))
  for slot in slots:
    yield evaluation_base.Score(
        f'{name}_codebook_{slot}',
        item,
        float(bits[:, slot].sum()),
        float(frames),
    )
