"""Phones that a recogniser gets wrong on held-out clips, in several channels."""

from collections.abc import Iterator
import dataclasses

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.data import audio_crops
from audiolm_jax.data import corpora
from audiolm_jax.data import phone_clips
from audiolm_jax.data.speech_world import channels
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import transcripts
from audiolm_jax.objectives import ctc

# Of rooms and noises that no clip of speech_world went through.
_UNSEEN = channels.SEEDS
# Each clip as it is, and copies of it.
CHANNELS: dict[str, channels.Channel] = {
    '': channels.Channel(),
    'noise': channels.Channel(noise='pink-10', noise_seed=_UNSEEN),
    'loud_noise': channels.Channel(noise='white-0', noise_seed=_UNSEEN),
    'room': channels.Channel(room=0.4, room_seed=_UNSEEN),
    'telephone': channels.Channel(band='telephone', bits=8),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhoneErrors:
  """Edits from the phones that are said to those that are heard, by clip.

  `phone_error` is their number over that of the phones; `substitutions`,
  `deletions` and `insertions` are its parts. After `noise/`, `loud_noise/`,
  `room/` and `telephone/` stand the same of copies of the clips behind those
  channels (`CHANNELS`).

  Attributes:
    corpus: a name that `corpora.load_corpus` knows, built as speech_world is.
    split: of the corpus; speech_world's 'test' is of speakers of their own.
    languages: which.
    limit: at most so many clips of each language, evenly spaced.
    channels: which copies; '' for the clips themselves.
  """

  corpus: corpora.Name = 'speech_world'
  split: str = 'test'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = 200
  channels: tuple[str, ...] = tuple(CHANNELS)

  def build(self, objective: ctc.CTC) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: for a channel that is none, or an objective that
        trains no recogniser.
      corpora.CorpusError: for a corpus that isn't built.
    """
    unknown = sorted(set(self.channels) - set(CHANNELS))
    if unknown:
      raise config.ConfigError(
          f'channels has {unknown[0]!r}: expected some of {list(CHANNELS)}.'
      )
    if not isinstance(objective, ctc.CTC):
      raise config.ConfigError(
          f'evaluator of phone errors: a {type(objective).__name__} trains no'
          ' recogniser.'
      )
    parts = [
        corpora.load_corpus(self.corpus, self.split, names)
        for names in ([(n,) for n in self.languages] or [()])
    ]
    return _Evaluator(self, objective, parts)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, objective, corpora_of_languages):
    self._settings, self._objective = settings, objective
    self._corpora = corpora_of_languages

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    recogniser = self._objective.bind(variables)
    for corpus in self._corpora:
      indices = evaluation_base.spaced(len(corpus), self._settings.limit)
      clips = [
          audio_crops.read(corpus, i, channels.RATE)[:, 0] for i in indices
      ]
      factors = [corpus.factors(i) for i in indices]
      for name in self._settings.channels:
        copies = [
            resample.mono(
                channels.apply(clip, CHANNELS[name])[:, None],
                channels.RATE,
                recogniser.sample_rate,
            )
            for clip in clips
        ]
        prefix = f'{name}/' if name else ''
        for clip, heard in zip(factors, recogniser.phones(copies), strict=True):
          errors = transcripts.align(phone_clips.phones(clip), heard)
          yield from parts_of('phone_error', clip['id'], errors, prefix)


def parts_of(
    name: str, item: str, errors: transcripts.Errors, prefix: str = ''
) -> Iterator[evaluation_base.Score]:
  """A clip's error rate and its parts, each over the symbols that were said.

  Args:
    name: of the rate.
    item: the clip.
    errors: its edits.
    prefix: of all names.
  """
  weight = float(errors.length)
  for kind, count in {name: errors.total, **errors.by_kind}.items():
    yield evaluation_base.Score(f'{prefix}{kind}', item, float(count), weight)
