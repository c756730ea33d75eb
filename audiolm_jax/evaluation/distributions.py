"""How far two sets of audio are from each other, without the bias of few clips."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Annotated, Any

from jaxtyping import Float
import numpy as np
from scipy import linalg

from audiolm_jax import config
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import codec as codec_evaluation
from audiolm_jax.evaluation import encoders

_LEAST = 0.3  # Share of the clips that the smallest set of the fit has.
_FITS = 12  # Sizes of sets.
_DRAWS = 8  # Sets of each size.


def frechet(
    mean_x: Float[np.ndarray, 'D'],
    cov_x: Float[np.ndarray, 'D D'],
    mean_y: Float[np.ndarray, 'D'],
    cov_y: Float[np.ndarray, 'D D'],
) -> float:
  """Squared Frechet distance of two Gaussians (Dowson & Landau 1982).

  |mean_x - mean_y|^2 + tr(cov_x + cov_y - 2 (cov_x cov_y)^(1/2)). The trace of
  the root is that of sqrt(cov_x) cov_y sqrt(cov_x), which is symmetric.
  """
  values, vectors = linalg.eigh(cov_x)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  inner = np.maximum(linalg.eigvalsh(root @ cov_y @ root), 0)
  difference = mean_x - mean_y
  trace = np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(inner).sum()
  return float(difference @ difference + trace)


def frechet_of(x: Float[np.ndarray, 'N D'], y: Float[np.ndarray, 'M D']):
  """Of two samples, by their means and covariances: biased, by O(1 / N)."""
  moments = [
      m for z in (x, y) for m in (z.mean(axis=0), np.atleast_2d(np.cov(z.T)))
  ]
  return frechet(*moments)


def frechet_infinity(
    x: Float[np.ndarray, 'N D'], y: Float[np.ndarray, 'M D'], seed: int = 0
) -> float:
  """Frechet distance at infinitely many clips (Chong & Forsyth 2020).

  The bias is linear in 1 / N: distances of sets of several sizes, drawn without
  replacement, are fitted by a line in it, whose value at 0 is given. Both sets are
  drawn anew, each in proportion, so that the bias of both is removed. It may be a
  little below 0 where distributions are the same.

  Args:
    x: vectors of one set.
    y: of the other.
    seed: of the draws.

  Raises:
    ValueError: for fewer clips than a line needs.
  """
  if min(len(x), len(y)) * _LEAST < 2:
    raise ValueError(
        f'{len(x)} and {len(y)} clips: expected at least'
        f' {int(np.ceil(2 / _LEAST))} of each'
    )
  rng = np.random.default_rng(seed)
  # Even in 1 / N.
  shares = 1 / np.linspace(1, 1 / _LEAST, _FITS)
  inverse, values = [], []
  for share in shares:
    for _ in range(1 if share == 1 else _DRAWS):
      a, b = (
          z[rng.permutation(len(z))[: max(2, round(share * len(z)))]]
          for z in (x, y)
      )
      inverse.append(1 / share)
      values.append(frechet_of(a, b))
  return float(np.polyfit(inverse, values, 1)[1])


def frechet_without(
    x: Sequence[Float[np.ndarray, 'N D']],
    y: Sequence[Float[np.ndarray, 'M D']],
    groups: int = 10,
) -> Float[np.ndarray, 'G']:
  """Pseudo-values of the Frechet distance of all vectors of two sets of clips.

  Their mean is the distance without its bias of first order, their spread over
  groups says how sure it is (the jackknife; Tukey 1958): give them to
  `statistics.t_interval`. A group of clips is left out of both sets at once, so
  that vectors of one clip, which are alike, count as one, and differences of two
  sets y to one x pair. It may be a little below 0 where distributions are the
  same.

  Args:
    x: the vectors of each clip of one set.
    y: of as many clips of the other; clip i of both is in group i mod G.
    groups: G.

  Raises:
    ValueError: for sets of other sizes, fewer clips than groups, or fewer than
      two groups.
  """
  if len(x) != len(y) or not 2 <= groups <= len(x):
    raise ValueError(
        f'{len(x)} and {len(y)} clips in {groups} groups: expected as many of'
        ' both, and a clip or more in each of two or more groups'
    )

  def distance(left_out):
    kept = [i for i in range(len(x)) if i % groups != left_out]
    return frechet_of(*(np.concatenate([z[i] for i in kept]) for z in (x, y)))

  whole = distance(groups)
  without = np.array([distance(g) for g in range(groups)])
  return groups * whole - (groups - 1) * without


def kernel_distance(
    x: Float[np.ndarray, 'N D'],
    y: Float[np.ndarray, 'M D'],
    scale: float | None = None,
) -> float:
  """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

  Of a Gaussian kernel exp(-|a - b|^2 / (2 scale^2)). Without bias: its mean is 0
  where distributions are the same, so that it may be below 0.

  Args:
    x: vectors of one set, at least 2.
    y: of the other, at least 2.
    scale: of the kernel; None for the median distance of the first set's vectors.

  Raises:
    ValueError: for fewer vectors.
  """
  if min(len(x), len(y)) < 2:
    raise ValueError(f'{len(x)} and {len(y)} vectors: expected at least 2 each')
  squares = [_squares(*pair) for pair in ((x, x), (y, y), (x, y))]
  if scale is None:
    scale = float(np.sqrt(np.median(squares[0][np.triu_indices(len(x), 1)])))
  xx, yy, xy = (np.exp(-s / (2 * max(scale, 1e-12) ** 2)) for s in squares)
  n, m = len(x), len(y)
  within = (xx.sum() - np.trace(xx)) / (n * (n - 1))
  other = (yy.sum() - np.trace(yy)) / (m * (m - 1))
  return float(within + other - 2 * xy.mean())


def _squares(x, y):
  """[N, M] squared distances."""
  sums = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
  return np.maximum(sums - 2 * x @ y.T, 0)


def distances(
    x: Float[np.ndarray, 'N D'], y: Float[np.ndarray, 'M D'], seed: int = 0
) -> dict[str, float]:
  """All of them, of a reference x and another set y.

  Vectors are standardised by the reference's means and spreads, so that no number
  is in the units of the encoder's largest feature.
  """
  spread = np.maximum(x.std(axis=0), 1e-9)
  x, y = ((z - x.mean(axis=0)) / spread for z in (x, y))
  return {
      'frechet': frechet_of(x, y),
      'frechet_infinity': frechet_infinity(x, y, seed),
      'kernel': kernel_distance(x, y),
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
  """Distances of a codec's reconstructions to recordings, as two sets.

  Scores 'frechet', 'frechet_infinity' and 'kernel', whose item is 'encoder-' and
  the beginning of the encoder's hash; '..._original' are those of the recordings'
  other half to the first, what nothing but chance makes. The halves are of
  different clips: the first half of the recordings is the reference of both.
  Audio of other makers: `distances` of two sets of an encoder's vectors.

  Attributes:
    encoder: of the audio.
    corpus: as `data.load_corpus` takes it.
    split: of the corpus.
    languages: which ones; empty for all.
    limit: at most so many clips, evenly spaced over the split.
    seed: of halves and draws.
  """

  encoder: Annotated[Any, config.Kind(lambda: encoders.ENCODERS)] = (
      encoders.RandomFeatures()
  )
  corpus: corpora.Name = 'speech_world'
  split: str = 'test'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  seed: config.Count = 0

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """An evaluator of what `objective.bind` makes of variables.

    Raises:
      corpora.CorpusError: if the corpus is not built.
      ConfigError: for an encoder that is none.
    """
    return _Evaluator(self, objective)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, objective):
    self._settings, self._objective = settings, objective
    self._encoder = settings.encoder.open()
    self._codec = codec_evaluation.CodecEvaluator(
        codec_evaluation.Codec(
            corpus=settings.corpus,
            split=settings.split,
            languages=settings.languages,
            limit=settings.limit,
        )
    )

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    originals, estimates = [], []
    bound = self._objective.bind(variables)
    channels = bound.spec.channels
    for item in self._codec.reconstruct(bound):
      estimate = item.estimates[max(item.estimates)]
      # One channel after the other, as reconstructions come.
      pair = [
          (x.reshape(channels, -1).T, item.sample_rate)
          for x in (item.original, estimate)
      ]
      a, b = self._encoder(pair)
      originals.append(a)
      estimates.append(b)
    order = np.random.default_rng(self._settings.seed).permutation(
        len(originals)
    )
    first, second = np.array_split(order, 2)
    x, y = np.stack(originals), np.stack(estimates)
    name = f'encoder-{self._encoder.hash[:12]}'
    for suffix, other in (('', y[second]), ('_original', x[second])):
      found = distances(x[first], other, self._settings.seed)
      for metric, value in found.items():
        yield evaluation_base.Score(f'{metric}{suffix}', name, value, 1.0)
