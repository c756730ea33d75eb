"""Errors of held-out clips by noise level: does the model still learn?"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax

from audiolm_jax import config
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.models import flow_lm
from audiolm_jax.objectives import denoising
from audiolm_jax.processes import validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingErrors:
  """Squared errors of a model that denoises, on whole clips, all hidden.

  `denoising_error` is the mean over noise levels, weighted by frames, of what the
  model predicts, without the loss's weight and density; the curve
  'denoising_error by noise level' has each level alone. A clip's noise goes by
  its id: it is the same at every evaluation, in every run, and beside any others.
  Errors of two models compare where they are of one process, target and cache.

  Attributes:
    clips: which clips.
    levels: noise levels, the middles of so many equal parts of the times.
  """

  clips: clips_lib.TokenClips = clips_lib.TokenClips()
  levels: config.Positive = 10

  def with_data(self, source: Any) -> 'DenoisingErrors':
    """Itself, with the cache of `source` (config.data) if its clips name none."""
    return dataclasses.replace(self, clips=self.clips.with_data(source))

  def build(self, objective: denoising.Denoising) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: for an objective that does not denoise, or clips that
        do not fit its decoder.
      encoding.TokensError: for a cache that doesn't fit.
    """
    if not isinstance(objective, denoising.Denoising):
      raise config.ConfigError(
          'an evaluator of denoising errors, but config.objective is a'
          f' {type(objective).__name__}'
      )
    clips = self.clips.open(objective.decoder, objective.rate)
    return _Evaluator(objective.decoder, clips, self.levels)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, decoder, clips, levels):
    self._decoder = decoder
    self._clips = clips
    self._levels = levels

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    params = variables['lm']['params']
    times = validation.levels(self._levels).tolist()
    for batch in self._clips.batches():
      items, rows = clips_lib.numbers(self._clips, batch)
      inputs = self._decoder.read(batch)
      errors = flow_lm.errors(self._decoder, params, inputs, rows, self._levels)
      for item, length, by_level in zip(
          items, batch['num_frames'], jax.device_get(errors), strict=True
      ):
        if length:
          yield from _entries(item, float(length), by_level, times)


def _entries(item, length, by_level, times):
  """The scores of one clip from its errors at each level."""
  name = 'denoising_error'
  for t, error in zip(times, by_level, strict=True):
    along = 'noise level', t
    yield evaluation_base.Score(name, item, float(error), length, along)
  yield evaluation_base.Score(name, item, float(by_level.mean()), length)
