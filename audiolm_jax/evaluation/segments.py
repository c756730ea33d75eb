"""Bits a frame of a model of segments on whole held-out clips."""

from collections.abc import Iterator
import dataclasses
import math

import jax
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import text_and_tokens
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.models import segment_lm
from audiolm_jax.objectives import segments


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentBits:
  """Scores the predicted segments of clips with their texts.

  For each clip: `LABEL/bits_per_frame` and `LABEL/bits_per_frame_codebook_k`,
  weighted by frames. Speech that follows its text is scored given the text: of
  the same codes, `lm` scores what a model of speech alone makes.

  Attributes:
    source: which clips, and how long.
    batch_size: clips that are scored at once.
  """

  source: text_and_tokens.TextAndTokens
  batch_size: config.Positive = 16

  def facts(self, key: str) -> list[config.Fact]:
    """What data and objective may also say; see `config.Fact`."""
    return token_cache.facts(self.source.cache, f'{key}.source.cache')

  def build(self, objective: segments.Segments) -> evaluation_base.Evaluator:
    """The evaluator; raises CacheError for a cache that doesn't fit."""
    self.source.select()
    return _Evaluator(self, objective)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, objective):
    self._settings = settings
    self._objective = objective

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    source = self._settings.source
    cache, _ = source.select()
    batches = text_and_tokens.whole_clips(source, self._settings.batch_size)
    for batch in batches:
      codes, num_frames = self._objective.split(batch)
      scores = segment_lm.score(
          self._objective.decoder, variables['lm']['params'], codes, num_frames
      )
      for label, found in jax.device_get(scores.segments).items():
        bits = -found.log_prob / math.log(2)
        for row, index in enumerate(batch['id']):
          frames = int(num_frames[label][row])
          if index >= 0 and frames:
            item = cache[index].factors['id']
            yield from _scores(label, item, bits[row], frames)


def _scores(label, item, bits, frames):
  name = f'{label}/bits_per_frame'
  yield evaluation_base.Score(name, item, float(np.sum(bits)), float(frames))
  for slot, value in enumerate(np.sum(bits, axis=0)):
    yield evaluation_base.Score(
        f'{name}_codebook_{slot}', item, float(value), float(frames)
    )
