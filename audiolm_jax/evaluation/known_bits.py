"""What clips of speech_world cost who knows how they were drawn."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.evaluation import world_clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownBits:
  """The true code length of the held-out clips of a token cache.

  `bits_per_frame` is minus log2 of the probability of all that was drawn for a
  clip, over the frames of the whole clip; `text_bits_per_frame` is the text's
  part. Tokens are a function of what was drawn, so a model of them that knew
  the world would need no more than the first. Test clips have speakers of a
  pool of their own, which no model has heard: it pays more for them.

  Attributes:
    clips: which, and of which cache.
  """

  clips: clips_lib.TokenClips

  def with_data(self, source: Any) -> 'KnownBits':
    """Itself, with the cache of `source` (config.data) if it names none."""
    return dataclasses.replace(self, clips=self.clips.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: if there is no cache, or its clips are of no world
        whose probabilities are known.
      encoding.TokensError: for a cache that doesn't fit.
    """
    del objective
    settings = self.clips
    clips_lib.need_cache(settings)
    cache = token_cache.TokenCache(
        settings.cache, settings.split, settings.tokenizer_hash
    )
    chosen = cache.select(settings.languages, settings.limit)
    examples = [cache[i] for i in chosen]
    return _Evaluator(
        [(e.factors['id'], e.frames, world_clips.costs(e)) for e in examples]
    )


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, known):
    self._known = known

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    del variables
    for item, frames, costs in self._known:
      weight = float(frames)
      total = sum(costs.values())
      yield evaluation_base.Score('bits_per_frame', item, total, weight)
      yield evaluation_base.Score(
          'text_bits_per_frame', item, costs['text'], weight
      )
