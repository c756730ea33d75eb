"""speech_world's texts for `bits.Bits`, beside what they truly cost."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import pipeline
from audiolm_jax.data import splits
from audiolm_jax.data import world_texts
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.tokenizers import encoding

# Words and the end that texts are padded to, and texts scored at once.
_ROWS = 64
_BUCKETS = ((8, _ROWS), (16, _ROWS), (32, _ROWS))


def held_out(world: clips_lib.World, count: int, split: str = 'test'):
  """The first clips of a world whose texts are of a split.

  Args:
    world: whose.
    count: how many.
    split: 'train', 'validation' or 'test'.

  Raises:
    ConfigError: for another split, or a language that is none.
  """
  if split not in splits.SPLITS:
    raise config.ConfigError(
        f'split = {split!r}: expected one of {splits.SPLITS}.'
    )
  every = (clips_lib.clip(world, i) for i in itertools.count())
  return list(itertools.islice((c for c in every if c.split == split), count))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldTextClips:
  """The first texts of a sub-language that are held out, for a model of words.

  The baseline `grammar/` is what they cost who knows the grammar: no model can
  need less on average. Words cost their own bits given those before them, and
  the end its own.

  Attributes:
    language: in `languages.LANGUAGES`; None for that of training's data.
    split: which texts.
    limit: how many; a text that comes again counts again.
  """

  language: languages.Name | None = None
  split: str = 'test'
  limit: config.Positive = 500

  streams = ('frames',)
  has_baselines = True

  def with_data(self, source: Any) -> 'WorldTextClips':
    """These texts, of the language of `source` (config.data) if of none."""
    if self.language is not None:
      return self
    language = getattr(source, 'language', None)
    return dataclasses.replace(self, language=language)

  def open(self, decoder: Any, rate: float) -> evaluation_base.Clips:
    """The texts for a decoder of words.

    Raises:
      config.ConfigError: if there is no language, or the decoder's vocabularies
        are not its; for a split that is none.
    """
    del rate
    if self.language is None:
      raise config.ConfigError(
          'clips.language = None: config.data has none to take; give one.'
      )
    sizes = world_texts.WorldTexts(language=self.language).vocabularies
    if tuple(decoder.vocabularies) != sizes:
      raise config.ConfigError(
          f'config.objective.decoder.vocabularies = {decoder.vocabularies}, but'
          f' {self.language} has {sizes}.'
      )
    return _Texts(self)


class _Texts(evaluation_base.Clips):

  def __init__(self, settings):
    world = clips_lib.World(settings.language)
    self._clips = held_out(world, settings.limit, settings.split)
    self._grammar = languages.language(settings.language).grammar

  def batches(self):
    rows = [
        world_texts.text_codes(clip.world.language, clip.words)
        for clip in self._clips
    ]
    lengths = np.array([len(row) for row in rows])
    bounds, sizes = pipeline.doubled(_BUCKETS, lengths.max(), _ROWS)
    for bound, size, members in pipeline.buckets(lengths, bounds, sizes):
      empty = size - len(members)
      yield {
          'codes': pipeline.pad([rows[i] for i in members], size, bound),
          'num_frames': np.int32([*lengths[members], *[0] * empty]),
          'id': np.int32([*members, *[-1] * empty]),
      }

  def item(self, index):
    return self._clips[index].id

  def baselines(self, index):
    bits = self._grammar.word_bits(self._clips[index].words)
    return {'grammar/': bits[:, None]}


def costs(example: encoding.Example) -> dict[str, float]:
  """What a clip of a token cache truly costs, in bits by what was drawn.

  Args:
    example: with its factors.

  Raises:
    ConfigError: for one that is of no world whose probabilities are known.
  """
  try:
    return clips_lib.costs(json.loads(example.factors['factors']))
  except (KeyError, ValueError) as error:
    raise config.ConfigError(
        f'clip {example.factors.get("id")}: its true cost is not known ({error}):'
        ' expected tokens of clips of speech_world without channels.'
    ) from error
