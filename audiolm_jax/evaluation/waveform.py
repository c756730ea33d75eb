"""Bits a sample of a waveform LM on held-out clips, and of its baselines."""

from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import Annotated

import jax
import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import audio_crops
from audiolm_jax.data import corpora
from audiolm_jax.data import pipeline
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import waveform_baselines
from audiolm_jax.models import sample_lm
from audiolm_jax.objectives import waveform

# Seconds that clips are padded to, and clips of each length scored at once.
_BUCKETS = ((1.0, 8), (2.0, 4), (4.0, 2))
# Training clips that the linear baseline is fitted to.
_FITTED = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveformBits:
  """Scores a waveform LM, and coders beside it, on a corpus's clips.

  For each clip `bits_per_sample`, weighted by samples; with baselines also
  `flac/...` (the size of FLAC's frames) and `linear/...` (linear prediction
  fitted to the split 'train' of the same languages). All code every sample of a
  clip on the model's grid, given the clip's past only. Comparisons are of one
  grid at one sample rate.

  Attributes:
    corpus: a name that `data.load_corpus` knows.
    split: which clips.
    languages: which; empty for all.
    limit: at most so many clips, evenly spaced.
    max_seconds: longer clips are cut to their beginning.
    baselines: whether to score them too.
  """

  corpus: corpora.Name = 'asterisk_prompts'
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  max_seconds: Annotated[float, config.Range(min=0.1)] = 8.0
  baselines: bool = False

  def build(self, objective: waveform.WaveformLM) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: for a model with conditions, which clips don't have,
        or a corpus that isn't built.
    """
    stack = objective.decoder.stack
    if stack.film or stack.local:
      raise config.ConfigError(
          f'evaluator of bits a sample: the stack has film = {stack.film} and'
          f' local = {stack.local}, but clips come without conditions.'
      )
    return _Evaluator(self, objective)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings: WaveformBits, objective: waveform.WaveformLM):
    self._settings = settings
    self._objective = objective
    self._corpus = self._open(settings.split)
    self._clips = self._chosen(self._corpus, settings.limit)

  def _open(self, split):
    return data.load_corpus(
        self._settings.corpus, split, self._settings.languages
    )

  def _chosen(self, corpus, limit):
    """Indices of clips that have a sample, evenly spaced."""
    found = np.flatnonzero(corpus.seconds() * self._objective.sample_rate >= 1)
    count = len(found) if limit is None else min(limit, len(found))
    return found[np.linspace(0, len(found) - 1, count).round().astype(int)]

  def _read(self, corpus, index):
    """A clip [T, C] float32, cut."""
    objective = self._objective
    audio = audio_crops.read(
        corpus, int(index), objective.sample_rate, objective.decoder.channels
    )
    return audio[: round(self._settings.max_seconds * objective.sample_rate)]

  def _grid(self, audio):
    bits = self._objective.decoder.bits
    return np.asarray(waveform_heads.to_grid(audio, bits))

  @functools.cached_property
  def _linear(self) -> waveform_baselines.Linear:
    corpus = self._open('train')
    clips = [
        self._grid(self._read(corpus, i)) for i in self._chosen(corpus, _FITTED)
    ]
    bits = self._objective.decoder.bits
    return waveform_baselines.fit_linear(clips, bits)

  @functools.cached_property
  def _baselines(self) -> dict[int, dict[str, float]]:
    """{index of the clip: {prefix of the name: bits}}; found once."""
    objective, found = self._objective, {}
    for index in self._clips:
      samples = self._grid(self._read(self._corpus, index))
      found[index] = {
          'linear/': float(self._linear.bits_of(samples).sum()),
          'flac/': waveform_baselines.flac_bits(
              samples, objective.decoder.bits, objective.sample_rate
          ),
      }
    return found

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    objective = self._objective
    rate, params = objective.sample_rate, variables['lm']['params']
    seconds = self._corpus.seconds()[self._clips]
    seconds = np.minimum(seconds, self._settings.max_seconds)
    bounds, sizes = map(list, zip(*_BUCKETS, strict=True))
    while bounds[-1] < self._settings.max_seconds:
      bounds.append(2 * bounds[-1])
      sizes.append(1)
    bounds = [round(rate * bound) for bound in bounds]
    num_samples = np.ceil(seconds * rate).astype(int)
    for bound, size, members in pipeline.buckets(num_samples, bounds, sizes):
      indices = self._clips[members]
      rows = [self._read(self._corpus, i)[:bound] for i in indices]
      counts = np.zeros(size, np.int32)
      counts[: len(rows)] = [len(row) for row in rows]
      scores = sample_lm.score(
          objective.decoder, params, pipeline.pad(rows, size, bound), counts
      )
      log_prob = np.asarray(jax.device_get(scores.log_prob), np.float64)
      bits = -log_prob.sum(axis=(1, 2)) / math.log(2)
      for index, row, total in zip(indices, rows, bits, strict=False):
        item = self._corpus.factors(int(index))['id']
        models = {'': float(total)}
        if self._settings.baselines:
          models |= self._baselines[index]
        for prefix, value in models.items():
          yield evaluation_base.Score(
              f'{prefix}bits_per_sample', item, value, float(row.size)
          )
