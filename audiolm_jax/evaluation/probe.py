"""The evaluator of probes: what of a factor a representation gives away."""

from collections.abc import Iterator
import dataclasses
from typing import Annotated, Any

import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import probing
from audiolm_jax.evaluation import representations

# Clips whose audio is held at once.
_MANY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """Reads a factor from a representation; scores by test clip.

  Of classes:
    accuracy: share of the test examples that are right.
    bits: -log2 p of a test label.
    information: bits that a test label costs less than by the frequencies of
      training: the mean is a lower bound of what the representation says, and
      the upper end of its interval (`comparison.statistics.bootstrap`) that of
      a leak, as far as such probes find one.
    control_accuracy, selectivity: of a probe of the same kind on the control task
      (Hewitt & Liang 2019), and how much less that is.
    code_bits: by training clip, bits a label of the online code (Voita & Titov
      2020); uniform_bits is log2 of the classes, so that their ratio is the
      compression.
    chance, chance_high: item 'corpus': accuracy where predictions are dealt to
      other clips, and the upper end of its interval of 95%.
  Of numbers: `error`, the mean absolute one in the factor's unit (f0: cents);
  `unexplained`, 1 - R^2 against the mean of training.

  Attributes:
    factor: of `labels.FACTORS`, or a name that the corpus's clips have.
    of: the representation.
    corpus: as `data.load_corpus` takes it.
    languages: which; empty for all.
    split: whose clips the probe learns from.
    test_split: whose clips it is tested on; None for a share of `split`.
    limit: at most so many clips of a split, evenly spaced.
    hold_out: what no test clip has in common with a training clip: 'speaker',
      'text', or another name of clips; None for what suits the factor. Without
      a test split, clips that are in between are left out.
    share: of the values of each of these that is for the test.
    hidden: width of a hidden layer; 0 for a linear probe.
    precisions: of the weights' prior, to choose from on held-out training clips.
    control: whether to run the control task.
    code: whether to compute the online code: ten fits.
    seed: of splits, the control task, and the first weights.
  """

  factor: str
  of: Annotated[Any, config.Kind(lambda: representations.REPRESENTATIONS)] = (
      representations.Mels()
  )
  corpus: corpora.Name = 'speech_world'
  languages: tuple[str, ...] = ()
  split: str = 'train'
  test_split: str | None = None
  limit: config.Positive | None = None
  hold_out: tuple[str, ...] | None = None
  share: Annotated[float, config.Range(min=0.01, max=0.99)] = 0.3
  hidden: config.Count = 0
  precisions: Annotated[tuple[float, ...], config.Range(min=1e-6)] = (
      0.1,
      1.0,
      10.0,
      100.0,
      1000.0,
  )
  control: bool = True
  code: bool = True
  seed: config.Count = 0

  def __post_init__(self):
    if not self.precisions:
      raise config.ConfigError('precisions = (): expected at least one')

  def with_data(self, source: Any) -> 'Probe':
    """Itself, with what its representation leaves to config.data filled in."""
    if not hasattr(self.of, 'with_data'):
      return self
    return dataclasses.replace(self, of=self.of.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a representation that the objective has not.
      corpora.CorpusError: if the corpus is not built.
    """
    return _Evaluator(self, self.of.open(objective))


@dataclasses.dataclass(frozen=True)
class _Clip:
  """What a clip is to a probe."""

  id: str
  groups: tuple[str, ...]
  examples: labels_lib.Examples


@dataclasses.dataclass(frozen=True)
class _Part:
  """The examples of some clips, one after the other."""

  clips: list[_Clip]
  x: np.ndarray
  y: np.ndarray
  items: np.ndarray
  groups: np.ndarray
  types: list[str]


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, encoder):
    self._settings = settings
    self._encoder = encoder
    self._factor = labels_lib.factor(settings.factor)
    self._hold_out = settings.hold_out
    if self._hold_out is None:
      self._hold_out = self._factor.hold_out
    self._corpora = [
        data.load_corpus(settings.corpus, split, settings.languages)
        for split in (settings.split, settings.test_split)
        if split is not None
    ]

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    parts = [self._read(corpus, variables) for corpus in self._corpora]
    vocabularies = parts[0][1]
    train, test = self._split([clips for clips, _ in parts])
    names = None
    if not self._factor.number:
      names = sorted({y for clip in train for y in clip.examples.labels})
      self._check(names, test)
    task = probing.Task(
        names and len(names),
        vocabularies if isinstance(self._factor, labels_lib.OfFrames) else (),
        self._settings.hidden,
        self._settings.seed,
    )
    train, test = (_part(clips, names) for clips in (train, test))
    precision = probing.choose(
        task,
        train.x,
        train.y,
        train.groups.tolist(),
        self._settings.precisions,
        seed=self._settings.seed,
    )
    probe = probing.fit(task, train.x, train.y, precision)
    if names is None:
      yield from _scores_of_numbers(probe, train, test)
    else:
      yield from _scores_of_classes(probe, train, test)
      if self._settings.control:
        yield from self._control(task, probe, precision, train, test)
      if self._settings.code:
        yield from self._code(task, precision, train)

  def _read(self, corpus, variables):
    """The clips that have an example, and the vocabularies of their codes."""
    chosen = evaluation_base.spaced(len(corpus), self._settings.limit)
    clips, vocabularies = [], ()
    for start in range(0, len(chosen), _MANY):
      raw = [corpus[int(i)] for i in chosen[start : start + _MANY]]
      frames = self._encoder(
          variables, [(c['audio'], c['sample_rate']) for c in raw]
      )
      for clip, seen in zip(raw, frames, strict=True):
        known = labels_lib.known(clip)
        examples = self._factor.examples(seen, known)
        vocabularies = seen.vocabularies
        groups = tuple(
            labels_lib.group_of(known, name) for name in self._hold_out
        )
        if examples.labels:
          clips.append(_Clip(clip['id'], groups, examples))
    if not clips:
      raise config.ConfigError(
          f'factor = {self._settings.factor!r}: no clip of'
          f' {self._settings.corpus} has it. Expected one of'
          f' {sorted(labels_lib.FACTORS)} that the corpus stores, or a name of'
          ' its clips.'
      )
    return clips, vocabularies

  def _split(self, parts):
    """Training and test clips, which share no group."""
    if len(parts) == 2:
      train, test = parts
      for k, name in enumerate(self._hold_out):
        shared = {c.groups[k] for c in train} & {c.groups[k] for c in test}
        if shared:
          raise config.ConfigError(
              f'{self._settings.split} and {self._settings.test_split} share'
              f' {len(shared)} values of {name!r}, such as'
              f' {sorted(shared)[0]!r}: the probe could know them. Take no'
              ' test_split, or another hold_out.'
          )
      return train, test
    (clips,) = parts
    if not self._hold_out:
      held = probing.held_out(
          [c.id for c in clips], self._settings.share, self._settings.seed
      )
      sides = [[c.id in set(held)] for c in clips]
    else:
      held = [
          set(
              probing.held_out(
                  [c.groups[k] for c in clips],
                  self._settings.share,
                  self._settings.seed,
              )
          )
          for k in range(len(self._hold_out))
      ]
      sides = [
          [g in h for g, h in zip(c.groups, held, strict=True)] for c in clips
      ]
    train = [c for c, s in zip(clips, sides, strict=True) if not any(s)]
    test = [c for c, s in zip(clips, sides, strict=True) if all(s)]
    if not train or not test:
      raise config.ConfigError(
          f'{len(clips)} clips make {len(train)} for training and {len(test)} for'
          f' the test where {list(self._hold_out)} are held out: take more clips,'
          ' or another share.'
      )
    return train, test

  def _check(self, names, test):
    unknown = {y for clip in test for y in clip.examples.labels} - set(names)
    if unknown:
      raise config.ConfigError(
          f'factor = {self._settings.factor!r}: test clips have'
          f' {len(unknown)} labels that no training clip has, such as'
          f' {sorted(unknown)[0]!r}. Hold out something else than the factor'
          f' itself (hold_out = {list(self._hold_out)}), or take more clips.'
      )

  def _control(self, task, probe, precision, train, test):
    """The same with labels that say nothing but the type."""
    labels = probing.control_labels(
        [*train.types, *test.types],
        np.concatenate([train.y, test.y]),
        self._settings.seed,
    )
    y, truth = labels[: len(train.y)], labels[len(train.y) :]
    control = probing.fit(task, train.x, y, precision)
    right = control(test.x).argmax(axis=1) == truth
    own = probe(test.x).argmax(axis=1) == test.y
    yield from _by_clip('control_accuracy', test, right)
    yield from _by_clip('selectivity', test, own.astype(float) - right)

  def _code(self, task, precision, train):
    bits = probing.online_code(
        task,
        train.x,
        train.y,
        train.items.tolist(),
        precision,
        self._settings.seed,
    )
    for i, clip in enumerate(train.clips):
      count = float(len(clip.examples.labels))
      uniform = count * float(np.log2(task.classes))
      yield evaluation_base.Score('code_bits', clip.id, bits[i], count)
      yield evaluation_base.Score('uniform_bits', clip.id, uniform, count)


def _part(clips, names) -> _Part:
  """Clips as arrays; labels by their places in `names`, or as they are."""
  labels = [y for clip in clips for y in clip.examples.labels]
  if names is None:
    y = np.array(labels, np.float64)
  else:
    place = {name: i for i, name in enumerate(names)}
    y = np.array([place[label] for label in labels], np.int32)
  counts = [len(clip.examples.labels) for clip in clips]
  groups = [clip.groups[0] if clip.groups else clip.id for clip in clips]
  return _Part(
      clips=clips,
      x=np.concatenate([clip.examples.x for clip in clips]),
      y=y,
      items=np.repeat(np.arange(len(clips)), counts),
      groups=np.repeat(np.array(groups, object), counts),
      types=[t for clip in clips for t in clip.examples.types],
  )


def _by_clip(name, part, values):
  """A score a clip: the sum of its examples' values, weighted by their number."""
  sums = np.bincount(part.items, values, minlength=len(part.clips))
  for clip, total in zip(part.clips, sums, strict=True):
    count = float(len(clip.examples.labels))
    yield evaluation_base.Score(name, clip.id, float(total), count)


def _scores_of_classes(probe, train, test):
  log2p = probe(test.x)
  predicted = log2p.argmax(axis=1)
  bits = -log2p[np.arange(len(test.y)), test.y]
  counts = np.bincount(train.y, minlength=probe.task.classes)
  prior = -np.log2(counts / counts.sum())
  yield from _by_clip('accuracy', test, predicted == test.y)
  yield from _by_clip('bits', test, bits)
  yield from _by_clip('information', test, prior[test.y] - bits)
  clips = range(len(test.clips))
  mean, _, high = probing.chance(
      [predicted[test.items == i] for i in clips],
      [test.y[test.items == i] for i in clips],
  )
  yield evaluation_base.Score('chance', 'corpus', mean, 1.0)
  yield evaluation_base.Score('chance_high', 'corpus', high, 1.0)


def _scores_of_numbers(probe, train, test):
  error = probe(test.x) - test.y
  yield from _by_clip('error', test, np.abs(error))
  spread = np.bincount(test.items, np.square(test.y - train.y.mean()))
  unexplained = np.bincount(test.items, np.square(error))
  for clip, a, b in zip(test.clips, unexplained, spread, strict=True):
    yield evaluation_base.Score('unexplained', clip.id, float(a), float(b))
