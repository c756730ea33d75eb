"""sWUGGY, sBLIMP and SALMon: which of two recordings does a model prefer?"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
from typing import Annotated, Any, Literal

from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import benchmarks
from audiolm_jax.evaluation import pair_scores
from audiolm_jax.evaluation import representations
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import token_lm

# Log-probabilities of some recordings.
Likelihoods = Callable[[Sequence[pathlib.Path]], Float[np.ndarray, 'N']]
# Recordings whose audio is held at once.
_MANY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkPairs:
  """Share of a benchmark's pairs of which a model finds the right half likelier.

  Of a language model of an audio tokenizer's codes. A pair is 1 where the right
  half is likelier, 1/2 where both are as likely, 0 else; chance is 1/2. An item
  is the mean over the voices that say it, a metric that over its items, as the
  benchmarks' own scorers have it:

  - swuggy: 'swuggy'; 'swuggy_in_vocabulary'; 'swuggy_frequency_BAND', by
    occurrences of the word in LibriSpeech ('oov', '1-5', '6-20', '21-100', '>100').
  - sblimp: 'sblimp', 'sblimp_TYPE' by the type of the error.
  - salmon: 'salmon_PART' for each part, and no mean of all.

  See `benchmarks` for the folders. It needs exact likelihoods.

  Attributes:
    benchmark: which.
    folder: lexical/dev or the like; syntactic/dev; SALMon's, or one of its parts.
    tokenizer: directory of the model whose codes are modelled; None for where it
      was when the cache was filled.
    cache: the token cache that says which tokenizer it is; None for that of
      training's data.
    reduction: 'mean' compares log-probabilities a frame, as most publish it of
      autoregressive models; 'sum' those of whole recordings.
    limit: only so many items, evenly spaced.
    batch_size: recordings that are scored at once.
  """

  benchmark: Literal['salmon', 'sblimp', 'swuggy']
  folder: Annotated[str, config.Path()]
  tokenizer: Annotated[str, config.Path()] | None = None
  cache: Annotated[str, config.Path()] | None = None
  reduction: pair_scores.Reduction = 'mean'
  limit: config.Positive | None = None
  batch_size: config.Positive = 16

  def with_data(self, source: Any) -> 'BenchmarkPairs':
    """Itself, with the cache of `source` (config.data) if it names none."""
    return evaluation_base.with_cache(self, source)

  def build(self, objective: Any) -> 'PairsEvaluator':
    """The evaluator.

    Raises:
      BenchmarkError: for a folder that is not the benchmark.
      ConfigError: for a model without exact likelihoods of whole frames, and
        where there is no tokenizer of its codes, or another than made the cache.
    """
    decoder = objective.model[1].module
    pair_scores.check(decoder)
    tokenizer = representations.tokenizer_of(
        decoder.vocabularies, self.cache, self.tokenizer
    )
    return PairsEvaluator(self, tokenizer, objective)


class PairsEvaluator(evaluation_base.Evaluator):
  """See `BenchmarkPairs`; `score` takes a model, as `audiolm_jax.load` gives."""

  def __init__(
      self,
      settings: BenchmarkPairs,
      tokenizer: audio_tokenizer.AudioTokenizer,
      objective: Any = None,
  ):
    """Finds the recordings, and reads none yet.

    Args:
      settings: what to score; its tokenizer and cache count for nothing.
      tokenizer: of the model's codes.
      objective: what binds the variables of `run`.

    Raises:
      BenchmarkError: for a folder that is not the benchmark.
    """
    self._settings, self._objective = settings, objective
    self._tokenizer = tokenizer
    pairs = benchmarks.PAIRS[settings.benchmark](settings.folder)
    self.pairs = benchmarks.some(pairs, settings.limit)
    # Of all recordings, whichever the model's variables are.
    self._codes: dict[pathlib.Path, np.ndarray] = {}

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    yield from self.score(self._objective.bind(variables))

  def score(self, model: token_lm.TokenLM) -> Iterator[evaluation_base.Score]:
    """Scores of each item, by a model of the tokenizer's first slots.

    Raises:
      BenchmarkError: for a recording that can't be read, has no frame, or is
        longer than the model hears.
    """
    settings = self._settings
    slots = len(model.decoder.vocabularies)

    def likelihoods(paths):
      self._encode([path for path in paths if path not in self._codes])
      rows = [self._codes[path][:, :slots] for path in paths]
      _check_lengths(model, paths, rows)
      return pair_scores.log2_probabilities(
          model, rows, settings.batch_size, settings.reduction
      )

    yield from preferences(self.pairs, likelihoods)

  def _encode(self, paths):
    for start in range(0, len(paths), _MANY):
      part = paths[start : start + _MANY]
      clips = [benchmarks.read(path) for path in part]
      frames = representations.of_tokens(
          self._tokenizer, clips, lambda _, tokens, *__: (tokens.codes, ())
      )
      for path, seen in zip(part, frames, strict=True):
        if not len(seen.values):
          raise benchmarks.BenchmarkError(f'{path} holds no audio.')
        self._codes[path] = seen.values


def _check_lengths(model, paths, rows) -> None:
  """Refuses a recording that is longer than learned positions reach."""
  decoder = model.decoder
  longest = max(range(len(rows)), key=lambda i: len(rows[i]))
  frames, slots = rows[longest].shape
  try:
    decoder.check_steps(decoder.pattern.steps(frames, slots))
  except ValueError as error:
    raise benchmarks.BenchmarkError(
        f'{paths[longest]} is longer than the model hears: its {frames} frames'
        f' are {error}.'
    ) from error


def preferences(
    pairs: Sequence[benchmarks.Pair], likelihoods: Likelihoods
) -> Iterator[evaluation_base.Score]:
  """Of each item, the mean over its pairs; see `BenchmarkPairs`.

  Args:
    pairs: of a benchmark.
    likelihoods: log-probabilities of recordings, to compare within pairs.
  """
  right, wrong = ([getattr(p, k) for p in pairs] for k in ('right', 'wrong'))
  names = [f'{pair.item} ({pair.right}, {pair.wrong})' for pair in pairs]
  values = pair_scores.preferences(names, right, wrong, likelihoods)
  by_item: dict[str, list[float]] = {}
  for pair, value in zip(pairs, values, strict=True):
    by_item.setdefault(pair.item, []).append(float(value))
  metrics = {pair.item: pair.metrics for pair in pairs}
  for item, own in by_item.items():
    for metric in metrics[item]:
      yield evaluation_base.Score(metric, item, float(np.mean(own)), 1.0)
