"""ABX of a representation: on speech_world's phones, or on an .item file."""

from collections.abc import Iterator
import dataclasses
import functools
import pathlib
from typing import Annotated, Any

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import corpora
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.evaluation import abx
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import benchmarks
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import representations

# Clips whose audio is held at once.
_MANY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abx:
  """ABX error within and across speakers; an item is a pair of phones.

  Scores 'abx_within' and 'abx_across', in [0, .5] for what is any good: 0 where
  phones are always told apart, .5 where never. See `abx`.

  Attributes:
    of: the representation; codes differ or not, vectors by their angle.
    items: an .item file, as ZeroSpeech's; None for the phones of `corpus`, each
      from the start of the one before to the end of the one after.
    audio: folder with the recordings of `items`; None for the folder beside it
      of the same name.
    corpus: as `data.load_corpus` takes it; it stores times of phones.
    languages: which; empty for all.
    split: of the corpus.
    limit: at most so many clips, the first.
    most: items of one phone, context and speaker at most.
    most_x: across, speakers that X is taken from at most.
    seed: of what is drawn where there are more.
  """

  of: Annotated[Any, config.Kind(lambda: representations.REPRESENTATIONS)] = (
      representations.Mels()
  )
  items: Annotated[str, config.Path()] | None = None
  audio: Annotated[str, config.Path()] | None = None
  corpus: corpora.Name = 'speech_world'
  languages: tuple[str, ...] = ()
  split: str = 'validation'
  limit: config.Positive | None = None
  most: config.Positive = 10
  most_x: config.Positive = 5
  seed: config.Count = 0

  def with_data(self, source: Any) -> 'Abx':
    """Itself, with what its representation leaves to config.data filled in."""
    if not hasattr(self.of, 'with_data'):
      return self
    return dataclasses.replace(self, of=self.of.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a representation that the objective has not.
      BenchmarkError: for an .item file that can't be read.
      corpora.CorpusError: if the corpus is not built.
    """
    return _Evaluator(self, self.of.open(objective))


def world_items(clip_id: str, known: Any) -> list[abx.Item]:
  """The phones of a clip of speech_world, but for silence.

  Args:
    clip_id: the clip's.
    known: see `labels.known`.
  """
  found = []
  phones = (known['world'] or {}).get('phones', [])
  for before, (phone, _, _), after in zip(
      phones, phones[1:], phones[2:], strict=False
  ):
    if phone != phones_lib.SILENCE:
      found.append(
          abx.Item(
              clip_id,
              before[1],
              after[2],
              phone,
              (before[0], after[0]),
              known['speaker'],
          )
      )
  return found


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, encoder):
    self._settings = settings
    self._encoder = encoder
    if settings.items is None:
      self._clips = _of_corpus(settings)
    else:
      self._clips = _of_items(settings)

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    items, values = [], []
    for start in range(0, len(self._clips), _MANY):
      part = self._clips[start : start + _MANY]
      loaded = [load() for load, _ in part]
      frames = self._encoder(variables, loaded)
      for (_, own), seen in zip(part, frames, strict=True):
        items += own
        values += [abx.cut(seen.values, seen.rate, item) for item in own]
    settings, found = self._settings, False
    for mode in ('within', 'across'):
      errors = abx.errors(
          items, values, mode, settings.most, settings.most_x, settings.seed
      )
      for (a, b), error in errors.items():
        found = True
        yield evaluation_base.Score(f'abx_{mode}', f'{a} {b}', error, 1.0)
    if not found:
      raise config.ConfigError(
          f'{len(items)} items make no triple: no two of one phone, and another'
          ' phone, in one context. Take more clips.'
      )


def _of_corpus(settings):
  """(what loads a clip, its items) of each clip."""
  corpus = data.load_corpus(settings.corpus, settings.split, settings.languages)
  count = min(len(corpus), settings.limit or len(corpus))
  clips = []
  for i in range(count):
    clip = corpus[i]
    items = world_items(clip['id'], labels_lib.known(clip))
    if items:
      clips.append((functools.partial(_audio, corpus, i), items))
  if not clips:
    raise config.ConfigError(
        f'corpus = {settings.corpus!r} stores no times of phones: use'
        ' speech_world, or give an .item file'
    )
  return clips


def _audio(corpus, index):
  clip = corpus[index]
  return clip['audio'], clip['sample_rate']


def _of_items(settings):
  path = pathlib.Path(settings.items)
  folder = pathlib.Path(settings.audio or path.with_suffix(''))
  by_file: dict[str, list[abx.Item]] = {}
  for item in benchmarks.items(path):
    by_file.setdefault(item.file, []).append(item)
  names = list(by_file)[: settings.limit]
  recordings = benchmarks.Recordings(folder)
  paths = {name: recordings[name] for name in names}
  return [
      (functools.partial(benchmarks.read, paths[name]), by_file[name])
      for name in names
  ]
