"""Pairs of which a model should find one half likelier: how both are scored.

As in sWUGGY and sBLIMP (Nguyen et al. 2020), SALMon (Maimon et al. 2024) and
BLIMP (Warstadt et al. 2020). A model only compares its own likelihoods, so that
the share of pairs compares across tokenizers. Chance is 1/2.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import pipeline
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import token_lm

# Of a row's log-probabilities: of all its codes, or the mean over its frames.
Reduction = Literal['sum', 'mean']
# What a pair consists of: clips, files, texts.
Half = TypeVar('Half')


def check(module: Any) -> None:
  """Refuses a model without likelihoods of whole frames to compare.

  Args:
    module: the model's, such as a decoder.

  Raises:
    ConfigError: for one that is of no frames of codes, predicts only some of
      their slots, or whose likelihoods are bounds.
  """
  if 'frames' not in getattr(module, 'streams', {}) or (
      len(module.predicted) < len(module.vocabularies)
  ):
    raise config.ConfigError(
        f'evaluator of pairs: a {type(module).__name__} does not model whole'
        ' frames of codes.'
    )
  if module.tag != 'exact':
    raise config.ConfigError(
        f'evaluator of pairs: the likelihoods of the decoder are {module.tag},'
        ' and a difference of bounds says nothing.'
    )


def log2_probabilities(
    model: token_lm.TokenLM,
    rows: Sequence[Int[np.ndarray, 'F K']],
    batch_size: int = 16,
    reduction: Reduction = 'sum',
) -> Float[np.ndarray, 'N']:
  """log2 of each row's probability, or its mean over frames.

  Rows of like length are scored together, in a few shapes. Equal rows are
  scored once, so that they tie exactly, whatever stands beside them.

  Args:
    model: of frames; where it has conditions, it is told none.
    rows: codes of the decoder's slots.
    batch_size: rows that are scored at once.
    reduction: 'sum' is of all codes; 'mean' is that over the frames that are
      scored, so that a short row is not likelier for being short.

  Raises:
    ValueError: for a row without a frame, or of a mean without one that is
      scored.
  """
  numbers: dict[tuple[Any, ...], int] = {}
  distinct, which = [], []
  for number, row in enumerate(rows):
    row = np.ascontiguousarray(row, np.int32)
    if not len(row):
      raise ValueError(f'row {number} of {len(rows)} has no frame')
    key = row.shape, row.tobytes()
    if key not in numbers:
      numbers[key] = len(distinct)
      distinct.append(row)
    which.append(numbers[key])
  if not distinct:
    return np.zeros(0)
  return _scored(model, distinct, batch_size, reduction)[which]


def _scored(model, rows, batch_size, reduction):
  """See `log2_probabilities`, of rows that differ."""
  lengths = np.array([len(row) for row in rows])
  # No more positions than the longest row needs: learned ones may be few.
  bounds = {
      min(audio_tokenizer.padded_frames(n), lengths.max()) for n in lengths
  }
  sizes = [batch_size] * len(bounds)
  totals = np.zeros(len(rows))
  for bound, size, members in pipeline.buckets(lengths, sorted(bounds), sizes):
    codes = pipeline.pad([rows[i] for i in members], size, bound)
    num_frames = np.zeros(size, np.int32)
    num_frames[: len(members)] = lengths[members]
    scores = model.score(codes, num_frames)['frames']
    log_prob = np.asarray(scores.log_prob, np.float64)[: len(members)]
    bits = log_prob.sum(axis=(1, 2)) / np.log(2)
    if reduction == 'mean':
      mask = np.asarray(scores.mask)[: len(members), :, model.decoder.predicted]
      counts = np.any(mask, axis=2).sum(axis=1)
      if not counts.all():
        raise ValueError('a row has no frame that is scored, and so no mean')
      bits = bits / counts
    totals[members] = bits
  return totals


def preferences(
    names: Sequence[str],
    right: Sequence[Half],
    wrong: Sequence[Half],
    score: Callable[[Sequence[Half]], Sequence[float]],
) -> Float[np.ndarray, 'N']:
  """1 where the right half is likelier, 1/2 where both are as likely, 0 else.

  Args:
    names: of the N pairs, for messages.
    right: the halves that should be likelier.
    wrong: the others.
    score: log-probabilities of some halves; -inf for what can't be. It is called
      once, with all of them, so that equal ones may tie exactly.

  Raises:
    ValueError: where one is no number.
  """
  both = np.asarray(score([*right, *wrong]), np.float64)
  a, b = np.split(both, [len(right)])
  for name, x, y in zip(names, a, b, strict=True):
    if np.isnan(x) or np.isnan(y):
      raise ValueError(
          f'the halves of {name} have the log-probabilities {x} and {y}: expected'
          ' numbers'
      )
  return (a > b) + 0.5 * (a == b)
