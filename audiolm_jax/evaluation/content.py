"""Whether audio says what it should, and whether what it says is grammatical.

A recogniser that took no part in training listens (`configs/judge`), whatever
the audio was made by; what it hears becomes the nearest words of the language.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Annotated, Any, NamedTuple

import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.data import corpora
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import phone_errors
from audiolm_jax.evaluation import speaking
from audiolm_jax.evaluation import transcripts
from audiolm_jax.evaluation import world_clips
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.tokenizers import base as tokenizers_base


class Heard(NamedTuple):
  """What a recogniser heard in a clip.

  Attributes:
    phones: as it heard them.
    words: of the language, the nearest ones.
    edits: how many phones away those are.
  """

  phones: list[str]
  words: list[str]
  edits: int


class Listener:
  """A recogniser, and the words of the language that it listens for."""

  def __init__(self, recogniser: recogniser_lib.PhoneRecogniser, language: str):
    """Takes a recogniser and a name in `languages.LANGUAGES`.

    Raises:
      ConfigError: for another name.
    """
    self._recogniser = recogniser
    self._language = languages.language(language)
    self._lexicon = transcripts.Lexicon(self._language.lexicon)

  def hear(self, clips: Sequence[speaking.Clip]) -> list[Heard]:
    """What is heard in each clip, of any rate and number of channels."""
    rate = self._recogniser.sample_rate
    heard = self._recogniser.phones(
        [resample.mono(c.audio, c.sample_rate, rate) for c in clips]
    )
    return [Heard(phones, *self._lexicon.words(phones)) for phones in heard]

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
    spelled = [self._language.phones(words) for words in said]
    for clip, words, phones, heard in zip(
        clips, said, spelled, self.hear(clips), strict=True
    ):
      errors = transcripts.align(words, heard.words)
      yield from phone_errors.parts_of('word_error', clip.item, errors, prefix)
      errors = transcripts.align(
          [p for word in phones for p in word], heard.phones
      )
      yield evaluation_base.Score(
          f'{prefix}phone_error',
          clip.item,
          float(errors.total),
          float(errors.length),
      )

  def accepts(self, heard: Heard, most_away: float = 0.3) -> bool:
    """Whether what is heard is of the language.

    Its words are of the grammar, and they are what was heard: babble has nearest
    words, too, and a grammar may take any order of them.

    Args:
      heard: in a clip.
      most_away: edits to the words, over the phones that were heard, at most.
    """
    return (
        bool(heard.words)
        and heard.edits <= most_away * len(heard.phones)
        and self._language.grammar.derivations(heard.words) > 0
    )


def _accepted(listener, most_away, clips, heard, prefix=''):
  """Scores `accepted` and `away` of clips and what is heard in them."""
  for clip, each in zip(clips, heard, strict=True):
    accepts = float(listener.accepts(each, most_away))
    yield evaluation_base.Score(f'{prefix}accepted', clip.item, accepts, 1.0)
    edits, phones = float(each.edits), float(len(each.phones))
    yield evaluation_base.Score(f'{prefix}away', clip.item, edits, phones)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentError:
  """Words and phones that a judge does not hear as they should be said.

  The texts of held-out clips become audio by whatever is trained: a language
  model with a condition 'text', or of the segments 'text' and 'speech', speaks
  each as long as the clip lasts; a codec reconstructs the clip. `word_error`
  and `phone_error` are of that audio, by clip; `original/` has the judge's own
  error on the clips, and for a language model `reconstruction/` that on the
  clips through its tokenizer: no model that speaks these tokens can be expected
  to do better. Where a recogniser is trained, it listens to the clips itself.

  Attributes:
    judge: directory of a recogniser; None where one is trained.
    language: whose words are said, in `languages.LANGUAGES`.
    corpus: of clips with texts, as `corpora.load_corpus` knows it.
    split: of the corpus.
    languages: which.
    limit: at most so many clips, evenly spaced.
    speaker: how a language model speaks.
  """

  judge: Annotated[str, config.Path()] | None = None
  language: languages.Name = 'sentences'
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
      ConfigError: for a corpus that isn't built, a text of another language, a
        judge where a recogniser is trained or none where not, a speaker where
        nothing speaks, and for what `Speaker.load` refuses.
      ModelError: for a judge that is none, or a tokenizer that is another.
    """
    corpus = corpora.load_corpus(self.corpus, self.split, self.languages)
    indices = evaluation_base.spaced(len(corpus), self.limit)
    clips = speaking.of_corpus(corpus, indices)
    for clip in clips:  # A text of another language is told before training.
      languages.language(self.language).phones(clip.text.split())
    module = objective.model[1].module
    trains_judge = isinstance(module, recogniser_lib.Recogniser)
    if trains_judge == (self.judge is not None):
      raise config.ConfigError(
          f'judge = {self.judge!r}: expected the directory of a recogniser, and'
          ' None where the run trains one.'
      )
    codec = isinstance(module, tokenizers_base.Tokenizer)
    silent = dataclasses.replace(self.speaker, cache=None)
    if (trains_judge or codec) and silent != speaking.Speaker():
      raise config.ConfigError(
          f'speaker = {silent}: the run trains a {type(module).__name__}, which'
          ' does not speak: leave it.'
      )
    if trains_judge:
      return _OwnErrors(objective, self.language, clips)
    listener = Listener(speaking.load_judge(self.judge), self.language)
    if codec:
      return _CodecErrors(objective, listener, clips)
    tokenizer = self.speaker.load(module, told=True)
    return _SpokenErrors(objective, listener, clips, self.speaker, tokenizer)


class _OwnErrors(evaluation_base.Evaluator):
  """Of a recogniser that is trained."""

  def __init__(self, objective, language, clips):
    self._objective, self._language = objective, language
    self._clips = clips

  def run(self, variables):
    listener = Listener(self._objective.bind(variables), self._language)
    return listener.errors(self._clips)


class _CodecErrors(evaluation_base.Evaluator):
  """Of the clips through a codec that is trained."""

  def __init__(self, objective, listener, clips):
    self._objective, self._listener, self._clips = objective, listener, clips
    # What training does not change, once it is known.
    self._ceiling: list[evaluation_base.Score] = []

  def run(self, variables):
    bound = self._objective.bind(variables)
    made = [speaking.reconstructed(bound, clip) for clip in self._clips]
    yield from self._listener.errors(made)
    if not self._ceiling:
      self._ceiling += self._listener.errors(self._clips, 'original/')
    yield from self._ceiling


class _SpokenErrors(evaluation_base.Evaluator):
  """Of the clips' texts, spoken by a language model that is trained."""

  def __init__(self, objective, listener, clips, speaker, tokenizer):
    self._objective, self._listener, self._clips = objective, listener, clips
    self._speaker, self._tokenizer = speaker, tokenizer
    # What training does not change, once it is known.
    self._ceilings: list[evaluation_base.Score] = []

  def run(self, variables):
    listener, clips = self._listener, self._clips
    model = self._objective.bind(variables)
    made = list(self._speaker.says(model, self._tokenizer, clips))
    yield from listener.errors(made)
    if not self._ceilings:
      self._ceilings += listener.errors(clips, 'original/')
      count = len(speaking.spoken(self._objective.decoder, told=True))
      through = [
          speaking.reconstructed(self._tokenizer, clip, count) for clip in clips
      ]
      self._ceilings += listener.errors(through, 'reconstruction/')
    yield from self._ceilings


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrammarAcceptance:
  """Share of what a language model says, untold, that the grammar accepts.

  Clips are drawn without a prompt, `seconds` long, and a judge writes down
  their words. `accepted` is the share of clips whose words are of the grammar, and
  near enough to what is heard; `away` the edits from what is heard to those words
  over the phones that are heard. `original/` has both of held-out clips as the
  judge hears them: the ceiling; `shuffled/accepted` is of the same words in
  another order: the floor, which is no lower than the ceiling where the grammar
  takes any order (digits). A text that the end of a clip cuts off is mostly not
  accepted: rows of training and `seconds` should hold whole clips.

  Attributes:
    judge: directory of a recogniser.
    language: in `languages.LANGUAGES`.
    count: how many clips.
    seconds: length of a clip.
    most_away: clips that are farther from all words are not accepted. Phones in
      a random order are: .37 is the 5% quantile of sentences, .33 that of
      digits, .5 of the matrix test.
    speaker: how the model speaks.
  """

  judge: Annotated[str, config.Path()]
  language: languages.Name = 'sentences'
  count: config.Positive = 64
  seconds: Annotated[float, config.Range(min=0.1, max=600)] = 4.0
  most_away: Annotated[float, config.Range(min=0, max=1)] = 0.3
  speaker: speaking.Speaker = speaking.Speaker()

  def with_data(self, source: Any) -> 'GrammarAcceptance':
    """Itself, with what its speaker leaves to `source` (config.data)."""
    return dataclasses.replace(self, speaker=self.speaker.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a language that is none, and for what `Speaker.load`
        refuses.
      ModelError: for a judge that is none, or a tokenizer that is another.
    """
    listener = Listener(speaking.load_judge(self.judge), self.language)
    tokenizer = self.speaker.load(objective.model[1].module, told=False)
    return _Acceptance(self, objective, listener, tokenizer)


class _Acceptance(evaluation_base.Evaluator):

  def __init__(self, settings, objective, listener, tokenizer):
    self._settings, self._objective = settings, objective
    self._listener, self._tokenizer = listener, tokenizer
    self._ends: list[evaluation_base.Score] = []

  def run(self, variables):
    settings, listener = self._settings, self._listener
    rate = self._tokenizer.spec.sample_rate
    silence = np.zeros((round(settings.seconds * rate), 1), np.float32)
    wanted = [
        speaking.Clip(f'drawn/{i:05d}', '', silence, rate)
        for i in range(settings.count)
    ]
    model = self._objective.bind(variables)
    made = list(settings.speaker.says(model, self._tokenizer, wanted))
    heard = listener.hear(made)
    yield from _accepted(listener, settings.most_away, made, heard)
    if not self._ends:
      self._ends += ends(
          listener, settings.language, settings.count, settings.most_away
      )
    yield from self._ends


def ends(
    listener: Listener, language: str, count: int, most_away: float = 0.3
) -> Iterator[evaluation_base.Score]:
  """The ceiling and the floor of acceptance; see `GrammarAcceptance`.

  Args:
    listener: of that language.
    language: in `languages.LANGUAGES`.
    count: of clips.
    most_away: see `Listener.accepts`.
  """
  world = clips_lib.World(language)
  clips = [speaking.of_world(c) for c in world_clips.held_out(world, count)]
  heard = listener.hear(clips)
  yield from _accepted(listener, most_away, clips, heard, 'original/')
  for i, (clip, each) in enumerate(zip(clips, heard, strict=True)):
    words = list(np.random.default_rng(i).permutation(each.words))
    accepts = float(listener.accepts(each._replace(words=words), most_away))
    yield evaluation_base.Score('shuffled/accepted', clip.item, accepts, 1.0)
