"""Who speaks: a frozen embedding of voices, and verification by it.

The embedding is small and our own: log-mel frames of speech, their mean and
standard deviation and those of their changes, then linear discriminant analysis
(Fisher 1936; Rao 1948) fitted to speech_world's first pool of speakers, of whom
no tokenizer or language model under test should be judged by what it was trained
on. It is a function of this file and of speech_world alone, and its hash stands in
the item of what it scores. Judge it by `error_rate` on the originals, which is
scored beside: 7% on clean sentences of pool three with impostors of the same
group, but 49%, no better than chance, through speech_world's channels. So it is
for clean speech: fitted to channels too it was better through channels (38%) and
worse on clean speech (14%).
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
from typing import Any

from jaxtyping import Bool, Float
import numpy as np
from scipy import linalg

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.data import corpora
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import codec as codec_evaluation
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import representations

RATE = 16000
_HOP, _BANDS = 160, 40
_WORLD = clips_lib.World('sentences', 'tokenizer')
_CLIPS = 960
_DIMENSION = 32
# Share of the mean variance that is added to the within-speaker covariance.
_SHRINKAGE = 0.02
_QUIET = 30.0  # dB below the loudest frame: not speech.


def statistics(audio: Float[np.ndarray, 'T']) -> Float[np.ndarray, 'S']:
  """Of the frames of speech of a clip at 16 kHz; zeros if it has none.

  Mean and standard deviation of 40 log-mel bands, without the clip's level, and
  the standard deviation of their changes over 20 ms.
  """
  mels = representations.log_mels(audio, RATE, _HOP, _BANDS)
  if len(mels) < 3:
    return np.zeros(3 * _BANDS)
  level = np.log(np.mean(np.exp(mels), axis=1))
  kept = level > level.max() - _QUIET / 20 * np.log(10)
  changes = (mels[2:] - mels[:-2])[kept[1:-1]]
  speech = mels[kept] - np.mean(mels[kept])
  spread = changes.std(axis=0) if len(changes) else np.zeros(_BANDS)
  parts = [speech.mean(axis=0), speech.std(axis=0), spread]
  return np.concatenate(parts).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Embedding:
  """A linear map of `statistics` to vectors of length 1.

  Attributes:
    mean: [S] of what it was fitted to.
    weights: [S, D].
  """

  mean: np.ndarray
  weights: np.ndarray

  def __call__(
      self, audio: Float[np.ndarray, 'T'], rate: int
  ) -> Float[np.ndarray, 'D']:
    """Of a clip of one channel at any rate."""
    audio = resample.mono(audio[:, None], rate, RATE)
    vector = (statistics(audio) - self.mean) @ self.weights
    return vector / max(np.linalg.norm(vector), 1e-12)

  @functools.cached_property
  def hash(self) -> str:
    """sha256 of the map, whose last bits other machines may round otherwise."""
    digest = hashlib.sha256()
    for array in (self.mean, np.abs(self.weights)):
      digest.update(np.round(array, 4).astype('<f8').tobytes())
    return digest.hexdigest()


def fit(
    x: Float[np.ndarray, 'N S'], speakers: Sequence[str], dimension: int
) -> Embedding:
  """Discriminant directions: most variance between speakers for that within.

  Args:
    x: statistics of N clips.
    speakers: who says each.
    dimension: how many directions, fewer than there are speakers.

  Raises:
    ValueError: for too few speakers.
  """
  names, which = np.unique(np.asarray(speakers), return_inverse=True)
  if len(names) <= dimension:
    raise ValueError(
        f'{len(names)} speakers tell at most {len(names) - 1} directions, not'
        f' {dimension}'
    )
  mean = x.mean(axis=0)
  counts = np.bincount(which)
  centres = np.stack([x[which == k].mean(axis=0) for k in range(len(names))])
  residual = x - centres[which]
  within = residual.T @ residual / len(x)
  offsets = (centres - mean) * np.sqrt(counts / len(x))[:, None]
  shrunk = within + _SHRINKAGE * np.eye(len(within)) * np.trace(within) / len(
      within
  )
  _, vectors = linalg.eigh(offsets.T @ offsets, shrunk)
  # Ascending; of unit variance within speakers.
  return Embedding(mean, vectors[:, ::-1][:, :dimension])


@functools.cache
def embedding() -> Embedding:
  """The frozen one, fitted to the first pool; takes 45 s on a core, once."""
  clips = [clips_lib.clip(_WORLD, i) for i in range(_CLIPS)]
  clips = [clip for clip in clips if clip.split != 'test']
  x = np.stack([statistics(clip.audio()) for clip in clips])
  names = [clip.utterance.speaker.name for clip in clips]
  return fit(x, names, _DIMENSION)


def error_rate(
    scores: Float[np.ndarray, 'N'], same: Bool[np.ndarray, 'N']
) -> float:
  """Equal error rate: where as many impostors pass as targets are refused.

  On the convex hull of the ROC: thresholds between two operating points are
  drawn at random (Brummer & du Preez 2006), so that ties and few trials have one
  answer.

  Args:
    scores: of trials, greater where voices are alike.
    same: whether they are of one speaker.

  Raises:
    ValueError: if one kind of trials is missing.
  """
  same = np.asarray(same, bool)
  if same.all() or not same.any():
    raise ValueError('an equal error rate needs trials of both kinds')
  # Rates for each threshold, equal scores together.
  _, which = np.unique(-np.asarray(scores), return_inverse=True)
  hits = np.cumsum(np.bincount(which, same)) / same.sum()
  alarms = np.cumsum(np.bincount(which, ~same)) / (~same).sum()
  points = np.stack([np.append(0, alarms), np.append(0, hits)], axis=1)
  hull = [points[0]]
  for point in points[1:]:
    while len(hull) > 1 and _right_turn(hull[-2], hull[-1], point) <= 0:
      hull.pop()
    hull.append(point)
  for (a0, h0), (a1, h1) in zip(hull, hull[1:], strict=False):
    if a1 >= 1 - h1:
      # alarms = misses on the line between both points.
      share = (1 - h0 - a0) / ((a1 - a0) + (h1 - h0))
      return float(a0 + share * (a1 - a0))
  return float(hull[-1][0])


def _right_turn(a, b, c) -> float:
  """Positive where the way from a over b to c turns right: b is on the hull."""
  return (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])


def trials(
    knowns: Sequence[dict[str, Any]],
) -> list[tuple[int, int, bool]]:
  """(enrolment, test, whether of one speaker): pairs of clips of other texts.

  Where groups (man, woman, child) are known, impostors are of the same one.

  Args:
    knowns: of clips, as `labels.known` gives them.
  """
  found = []
  groups = [labels_lib.group_of({**k, 'id': ''}, 'group') for k in knowns]
  for i, a in enumerate(knowns):
    for j, b in enumerate(knowns):
      texts = (a.get('text') or a['id'], b.get('text') or b['id'])
      known = a.get('speaker') and b.get('speaker')
      if i == j or not known or texts[0] == texts[1]:
        continue
      if groups[i] == groups[j]:
        found.append((i, j, a['speaker'] == b['speaker']))
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voices:
  """How well a codec keeps voices, by the frozen embedding.

  By clip 'similarity': cosine of reconstruction and original, in [-1, 1]. Of all
  trials (see `trials`), whose item names the embedding's hash: 'eer', enrolled by
  originals and tested by reconstructions; 'eer_original', both original: what the
  embedding itself can tell. Where no trials can be made there is no 'eer'.

  Attributes:
    corpus: as `data.load_corpus` takes it.
    split: of the corpus.
    languages: which ones; empty for all.
    limit: at most so many clips, evenly spaced over the split.
  """

  corpus: corpora.Name = 'speech_world'
  split: str = 'test'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """An evaluator of what `objective.bind` makes of variables.

    Raises:
      corpora.CorpusError: if the corpus is not built.
    """
    return _Evaluator(codec_evaluation.Codec(**vars(self)), objective)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, objective):
    self._codec = codec_evaluation.CodecEvaluator(settings)
    self._objective = objective

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    embed, knowns, originals, estimates = embedding(), [], [], []
    for item in self._codec.reconstruct(self._objective.bind(variables)):
      a, b = item.original, item.estimates[max(item.estimates)]
      a, b = embed(a, item.sample_rate), embed(b, item.sample_rate)
      knowns.append(labels_lib.known(item.clip))
      originals.append(a)
      estimates.append(b)
      yield evaluation_base.Score(
          'similarity', item.clip['id'], float(a @ b), 1
      )
    pairs = trials(knowns)
    same = np.array([s for _, _, s in pairs], bool)
    if not same.any() or same.all():
      return
    name = f'speakers-{embed.hash[:12]}'
    first = np.stack(originals)
    for metric, second in (('eer', estimates), ('eer_original', originals)):
      cosines = first @ np.stack(second).T
      scores = np.array([cosines[i, j] for i, j, _ in pairs])
      rate = error_rate(scores, same)
      yield evaluation_base.Score(metric, name, rate, 1.0)
