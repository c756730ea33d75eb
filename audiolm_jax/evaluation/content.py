"""Whether audio says what it should, and whether what it says is grammatical.

A recogniser that took no part in training listens (`configs/judge`), whatever
the audio was made by; what it hears becomes the nearest words of the language.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from typing import Annotated, Any

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import corpora
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import synthesiser
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import phone_errors
from audiolm_jax.evaluation import speaking
from audiolm_jax.evaluation import transcripts
from audiolm_jax.evaluation import world_clips
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import recogniser as recogniser_lib


class Listener:
  """A recogniser, and the words of the language that it listens for."""

  def __init__(self, recogniser: recogniser_lib.PhoneRecogniser, language: str):
    """Takes a recogniser and a name in `languages.LANGUAGES`.

    Raises:
      ConfigError: for another name.
    """
    self.recogniser = recogniser
    self.language = languages.language(language)
    self._lexicon = transcripts.Lexicon(self.language.lexicon)

  def phones(self, clips: Iterable[speaking.Clip]) -> list[list[str]]:
    """What is heard in each clip."""
    return self.recogniser.phones(
        [self.recogniser.hear(c.audio, c.sample_rate) for c in clips]
    )

  def words(self, phones: Sequence[str]) -> tuple[list[str], int]:
    """The words nearest to what was heard, and how many edits away."""
    return self._lexicon.words(phones)

  def errors(
      self, clips: Sequence[speaking.Clip], prefix: str = ''
  ) -> Iterator[evaluation_base.Score]:
    """Errors of every clip, whatever made it.

    Args:
      clips: with their texts, of words of the language.
      prefix: of the scores' names.

    Yields:
      `word_error` and `phone_error`, the edits from what should be said to what
      is heard, and of the words' `substitutions`, `deletions` and `insertions`;
      weights are words (phones).

    Raises:
      ConfigError: for a text with a word that the language has not.
    """
    said = [clip.text.split() for clip in clips]
    spelled = [self.language.phones(words) for words in said]
    for clip, words, phones, heard in zip(
        clips, said, spelled, self.phones(clips), strict=True
    ):
      errors = transcripts.align(words, self.words(heard)[0])
      yield from phone_errors.scores(
          f'{prefix}word_error', clip.item, errors, prefix
      )
      errors = transcripts.align([p for word in phones for p in word], heard)
      yield evaluation_base.Score(
          f'{prefix}phone_error',
          clip.item,
          float(errors.total),
          float(errors.length),
      )

  def accepted(
      self, clips: Sequence[speaking.Clip], prefix: str = ''
  ) -> Iterator[evaluation_base.Score]:
    """Whether the grammar accepts what is heard in each clip.

    Args:
      clips: their texts count for nothing.
      prefix: of the scores' names.

    Yields:
      `accepted`, 1 or 0, of each clip (0 where nothing is heard); `away`, the
      edits to the nearest words over the phones that were heard: where it is
      large, the words are those of this language by force only.
    """
    for clip, heard in zip(clips, self.phones(clips), strict=True):
      words, edits = self.words(heard)
      yield self._accepts(clip.item, words, prefix)
      yield evaluation_base.Score(
          f'{prefix}away', clip.item, float(edits), float(len(heard))
      )

  def shuffled(
      self, clips: Sequence[speaking.Clip], prefix: str
  ) -> Iterator[evaluation_base.Score]:
    """`accepted` of the same words in an order drawn for each clip."""
    for i, heard in enumerate(self.phones(clips)):
      words, _ = self.words(heard)
      words = list(np.random.default_rng(i).permutation(words))
      yield self._accepts(clips[i].item, words, prefix)

  def _accepts(self, item, words, prefix):
    accepts = bool(words) and self.language.grammar.derivations(words) > 0
    return evaluation_base.Score(f'{prefix}accepted', item, float(accepts), 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentError:
  """Words and phones that a judge does not hear as they should be said.

  The texts of held-out clips become audio by whatever is trained: a language
  model with a condition 'text', or of the segments 'text' and 'speech', speaks
  each as long as the clip lasts; a codec reconstructs the clip. `word_error`
  and `phone_error` are of that audio, by clip; `original/` has the judge's own
  error on the clips, and for a language model `reconstruction/` that on the
  clips through its tokenizer: no model that speaks these tokens can be expected
  to do better.

  Attributes:
    judge: directory of a recogniser.
    language: whose words are said, in `languages.LANGUAGES`.
    corpus: of clips with texts, as `corpora.load_corpus` knows it.
    split: of the corpus.
    languages: which.
    limit: at most so many clips, evenly spaced.
    speaker: how a language model speaks.
  """

  judge: Annotated[str, config.Path()]
  language: str = 'sentences'
  corpus: corpora.Name = 'speech_world'
  split: str = 'test'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = 100
  speaker: speaking.Speaker = speaking.Speaker()

  def with_data(self, source: Any) -> 'ContentError':
    """Itself, with what its speaker leaves to `source` (config.data)."""
    return dataclasses.replace(self, speaker=self.speaker.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a corpus that isn't built or a language that is none.
      ModelError: for a judge that is none, or a tokenizer that is another.
    """
    corpus = corpora.load_corpus(self.corpus, self.split, self.languages)
    indices = evaluation_base.spaced(len(corpus), self.limit)
    clips = speaking.of_corpus(corpus, indices)
    listener = Listener(speaking.load_judge(self.judge), self.language)
    return _ContentErrors(objective, listener, clips, self.speaker)


class _ContentErrors(evaluation_base.Evaluator):

  def __init__(self, objective, listener, clips, speaker):
    self._objective, self._listener = objective, listener
    self._clips, self._speaker = clips, speaker
    self._tokenizer = None
    # What training does not change, once it is known.
    self._ceilings: list[evaluation_base.Score] = []

  def run(self, variables):
    model = self._objective.bind(variables)
    listener, clips = self._listener, self._clips
    if not self._ceilings:
      self._ceilings += listener.errors(clips, 'original/')
    if isinstance(model, audio_tokenizer.AudioTokenizer):
      made = [speaking.reconstructed(model, clip) for clip in clips]
    else:
      if self._tokenizer is None:
        self._tokenizer = self._speaker.load()
        self._ceilings += listener.errors(
            self._through(self._tokenizer), 'reconstruction/'
        )
      made = list(self._speaker.says(model, self._tokenizer, clips))
    yield from listener.errors(made)
    yield from self._ceilings

  def _through(self, tokenizer):
    stream = list(self._objective.decoder.streams)[-1]
    count = len(self._objective.decoder.slots(stream))
    return [speaking.reconstructed(tokenizer, c, count) for c in self._clips]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrammarAcceptance:
  """Share of what a language model says, untold, that the grammar accepts.

  Clips are drawn without a prompt, `seconds` long, and a judge writes down
  their words. `original/accepted` is the share of held-out clips whose words,
  as the judge hears them, are accepted: the ceiling; `shuffled/accepted` that
  of the same words in another order, the floor. A text that the end of a clip
  cuts off is mostly not accepted: rows of training and `seconds` should hold
  whole clips.

  Attributes:
    judge: directory of a recogniser.
    language: in `languages.LANGUAGES`.
    count: how many clips.
    seconds: length of a clip.
    speaker: how the model speaks.
  """

  judge: Annotated[str, config.Path()]
  language: str = 'sentences'
  count: config.Positive = 64
  seconds: Annotated[float, config.Range(min=0.1, max=600)] = 4.0
  speaker: speaking.Speaker = speaking.Speaker()

  def with_data(self, source: Any) -> 'GrammarAcceptance':
    """Itself, with what its speaker leaves to `source` (config.data)."""
    return dataclasses.replace(self, speaker=self.speaker.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a language that is none, or no cache.
      ModelError: for a judge that is none, or a tokenizer that is another.
    """
    listener = Listener(speaking.load_judge(self.judge), self.language)
    return _Acceptance(self, objective, listener, self.speaker.load())


class _Acceptance(evaluation_base.Evaluator):

  def __init__(self, settings, objective, listener, tokenizer):
    self._settings, self._objective = settings, objective
    self._listener, self._tokenizer = listener, tokenizer
    self._ends: list[evaluation_base.Score] = []

  def run(self, variables):
    settings = self._settings
    rate = self._tokenizer.spec.sample_rate
    silence = np.zeros((round(settings.seconds * rate), 1), np.float32)
    wanted = [
        speaking.Clip(f'drawn/{i:05d}', '', silence, rate)
        for i in range(settings.count)
    ]
    model = self._objective.bind(variables)
    made = settings.speaker.says(model, self._tokenizer, wanted)
    yield from self._listener.accepted(list(made))
    if not self._ends:
      world = clips_lib.World(settings.language)
      originals = [
          of_world(clip) for clip in world_clips.held_out(world, settings.count)
      ]
      self._ends += self._listener.accepted(originals, 'original/')
      self._ends += self._listener.shuffled(originals, 'shuffled/')
    yield from self._ends


def of_world(clip: clips_lib.Clip) -> speaking.Clip:
  """A clip of speech_world with its audio."""
  return speaking.Clip(
      clip.id, clip.text, clip.audio()[:, None], synthesiser.RATE
  )
