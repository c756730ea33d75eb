"""Grammar pairs: does a model prefer what is grammatical, all else equal?

After BLIMP (Warstadt et al. 2020) and sBLIMP (Nguyen et al. 2020). Both halves
of a pair are rendered alike: same voice, timing, noise, room and channel.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Annotated, Any


from audiolm_jax import config
from audiolm_jax.data import world_texts
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import pair_scores
from audiolm_jax.evaluation import representations
from audiolm_jax.evaluation import speaking
from audiolm_jax.evaluation import world_clips

# log2 of the probability of each clip.
Score = Callable[[Sequence[clips_lib.Clip]], Sequence[float]]
# The curve's last point: what is so far, or farther.
_FAR = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrammarPairs:
  """Share of pairs of which a model finds the grammatical half likelier.

  A half is a held-out clip, the other one its twin (`clips.Clip.twin`): one
  word is ungrammatical, or a sum is untrue. `pairs` is 1 where the whole of the
  right one is likelier, 1/2 where both are as likely, 0 else; chance is 1/2. It
  needs exact likelihoods. In sentences there is a curve too, 'pairs by
  distance': of the pairs with so many words between noun and verb; at 6, of
  those with 6 or more. It compares across tokenizers, since each model only
  compares its own likelihoods. 95% of chance's results lie within
  1/2 +- 1/sqrt(count).

  A model of a tokenizer's codes hears the audio of both; a model of words
  (`data.WorldTexts`) reads the words. A model with conditions is told none.

  Attributes:
    language: 'sentences' or 'sums'; None for that of training's data.
    pool: of speech_world's `clips.POOLS`, of which the engine speaks; test clips
      are of its held-out pool whichever.
    channels: whether clips go through a drawn channel, a pair through one.
    count: of pairs.
    batch_size: clips that are scored at once.
    tokenizer: directory of the tokenizer whose codes a model of audio reads; None
      for where it was when the cache was filled.
    cache: the token cache that says which it is; None for that of training's
      data.
  """

  language: languages.Name | None = None
  pool: speakers.Pool = 'lm'
  channels: bool = False
  count: config.Positive = 200
  batch_size: config.Positive = 16
  tokenizer: Annotated[str, config.Path()] | None = None
  cache: Annotated[str, config.Path()] | None = None

  def with_data(self, source: Any) -> 'GrammarPairs':
    """Itself, with what it leaves to `source` (config.data) filled in."""
    language = self.language or getattr(source, 'language', None)
    itself = evaluation_base.with_cache(self, source)
    return dataclasses.replace(itself, language=language)

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a language in which nothing can be wrong, a model that is
        not of whole frames of codes or whose likelihoods are bounds, channels
        for one of words, and where there is no tokenizer of the codes.
      ModelError: for a tokenizer that is another.
    """
    if self.language is None:
      raise config.ConfigError(
          'evaluator of pairs: language = None, and config.data has none; give'
          " 'sentences' or 'sums'."
      )
    decoder = objective.model[1].module
    pair_scores.check(decoder)
    world = clips_lib.World(self.language, self.pool, channels=self.channels)
    clips = world_clips.held_out(world, self.count)
    clips[0].twin()  # A language without any is told before training.
    source = world_texts.WorldTexts(language=self.language)
    words = tuple(decoder.vocabularies) == source.vocabularies
    tokenizer = None
    if self.cache is not None or not words:
      tokenizer = representations.tokenizer_of(
          decoder.vocabularies, self.cache, self.tokenizer
      )
    elif self.channels:
      raise config.ConfigError('channels = True: a model of words hears none.')
    return _Pairs(objective, clips, tokenizer, self.batch_size)


class _Pairs(evaluation_base.Evaluator):

  def __init__(self, objective, clips, tokenizer, batch_size):
    self._objective, self._clips = objective, clips
    self._tokenizer, self._batch_size = tokenizer, batch_size
    self._codes: dict[str, Any] = {}  # Of the pairs, made once.

  def run(self, variables):
    model = self._objective.bind(variables)
    yield from preferences(self._clips, lambda c: self._score(model, c))

  def _score(self, model, clips):
    rows = [self._row(model, clip) for clip in clips]
    return pair_scores.log2_probabilities(model, rows, self._batch_size)

  def _row(self, model, clip):
    key = clip.text, clip.id
    if key not in self._codes:
      if self._tokenizer is None:
        codes = world_texts.text_codes(clip.world.language, clip.words)
      else:
        codes = speaking.encoded(self._tokenizer, speaking.of_world(clip)).codes
        codes = codes[0, :, : len(model.decoder.vocabularies)]
      self._codes[key] = codes
    return self._codes[key]


def preferences(
    clips: Sequence[clips_lib.Clip], score: Score
) -> Iterator[evaluation_base.Score]:
  """Of each clip, whether it is likelier than its twin; see `GrammarPairs`.

  Args:
    clips: the right halves.
    score: log2 of the probabilities of some clips; -inf for what can't be.
  """
  names, twins = [clip.id for clip in clips], [clip.twin() for clip in clips]
  values = pair_scores.preferences(names, clips, twins, score)
  for clip, value in zip(clips, values.tolist(), strict=True):
    yield evaluation_base.Score('pairs', clip.id, value, 1.0)
    language = languages.language(clip.world.language)
    if agreement := language.agreement(clip.words):
      place = 'distance', float(min(agreement.distance, _FAR))
      yield evaluation_base.Score('pairs', clip.id, value, 1.0, place)
