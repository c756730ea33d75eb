"""Batches of speech_world's texts as codes: what is said, without any sound."""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import base as data_base
from audiolm_jax.data import pipeline
from audiolm_jax.data import splits
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages

# Rows of an epoch: as texts are drawn anew, only a name for where one stands.
_ROWS = 1 << 16
_TRIES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldTexts:
  """Whole texts of a sub-language, drawn anew for each row.

  Batches hold `codes` [B, F, 1] and `num_frames` [B], as of a tokenizer with
  one codebook: a word is its place in the language's lexicon, and the code
  after those of all words is the end of a text. The true cost of a text is
  known: `grammar.Grammar.log2_probability`.

  Attributes:
    language: in `languages.LANGUAGES`.
    split: 'train', 'validation' or 'test': texts whose hash says so.
    frames: length of a row, the end included; longer texts are drawn again.
    workers: processes that draw; 0 draws in a thread.
    buffer: batches drawn ahead (per worker).
  """

  language: languages.Name = 'sentences'
  split: str = 'train'
  frames: config.Positive = 48
  workers: config.Count = 0
  buffer: config.Positive = 4

  @property
  def lengths(self) -> dict[str, int]:
    """How long rows of each stream are."""
    return {'frames': self.frames}

  @property
  def vocabularies(self) -> tuple[int, ...]:
    """How many codes there are."""
    return (len(languages.language(self.language).lexicon) + 1,)

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
  ) -> data_base.BatchSource:
    """See `pipeline.CropSource`.

    Raises:
      ConfigError: for a split or a language that is none.
    """
    if self.split not in splits.SPLITS:
      raise config.ConfigError(
          f'config.data.split = {self.split!r}: expected one of'
          f' {splits.SPLITS}.'
      )
    languages.language(self.language)
    return pipeline.CropSource(
        self._row,
        np.ones(_ROWS, int),
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        workers=self.workers,
        buffer=self.buffer,
    )

  def _row(self, index, rng) -> dict[str, np.ndarray]:
    del index  # The generator is the row's own.
    grammar = languages.language(self.language).grammar
    for _ in range(_TRIES):
      words, _ = grammar.sample(rng)
      if len(words) < self.frames and clips_lib.split_of(words) == self.split:
        break
    else:
      raise config.ConfigError(
          f'config.data.frames = {self.frames}: of {_TRIES} texts of'
          f' {self.language} none is of {self.split} and so short.'
      )
    codes = text_codes(self.language, words)
    return {
        'codes': pipeline.pad([codes], 1, self.frames)[0],
        'num_frames': np.int32(len(codes)),
    }


def text_codes(language: str, words: Sequence[str]) -> Int[np.ndarray, 'F 1']:
  """A text's codes and that of its end, int32.

  Raises:
    ConfigError: naming a word that the language has not.
  """
  places = {w: i for i, w in enumerate(languages.language(language).lexicon)}
  unknown = [word for word in words if word not in places]
  if unknown:
    raise config.ConfigError(f'{language} has no word {unknown[0]!r}')
  codes = [*(places[word] for word in words), len(places)]
  return np.array(codes, np.int32)[:, None]
