"""Bits of held-out clips under a model, and under models beside it."""

from collections.abc import Iterator
import dataclasses
from typing import Annotated, Any, Literal

import jax
import numpy as np

from audiolm_jax import config
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.models import masked_lm
from audiolm_jax.models import scoring
from audiolm_jax.objectives import likelihood
from audiolm_jax.processes import noise as noise_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bits:
  """Scores a model of codes or samples on whole clips, one by one.

  Of a model of frames `bits_per_frame`, weighted by frames, and of each of its
  slots `bits_per_frame_codebook_k`; of segments the same after `LABEL/` for each
  segment that is predicted; of samples `bits_per_sample`, weighted by samples of
  all channels. A bound is reported under the same names, from one draw for each
  clip, the same at every evaluation and whatever is beside it; see `Bounds`.

  Of frames there are curves by position too, 'bits_per_frame by frame': the mean
  over frames 1, 2 and 3, 4 to 7, 8 to 15 ... of the clips, at the first of them.

  Attributes:
    clips: which clips, and where they come from.
    baselines: whether to score the models that the clips have beside it, too:
      the same names after `unigram/` and `bigram/`, or `linear/` and `flac/`.
  """

  clips: Annotated[Any, config.Kind(lambda: clips_lib.CLIPS)]
  baselines: bool = False

  def with_data(self, source: Any) -> 'Bits':
    """Itself, with what its clips leave to `source` (config.data) filled in."""
    if not hasattr(self.clips, 'with_data'):
      return self
    return dataclasses.replace(self, clips=self.clips.with_data(source))

  def build(self, objective: likelihood.NLL) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: for clips of something else than the model is of, or
        baselines of clips that have none.
      encoding.TokensError: for a cache that doesn't fit.
      corpora.CorpusError: for a corpus that isn't built.
    """
    decoder = objective.decoder
    if sorted(decoder.streams) != sorted(self.clips.streams):
      raise config.ConfigError(
          f'{type(self.clips).__name__} has the streams'
          f' {list(self.clips.streams)}, but the decoder, a'
          f' {type(decoder).__name__}, has {list(decoder.streams)}.'
      )
    if self.baselines and not self.clips.has_baselines:
      raise config.ConfigError(
          f'baselines = True: {type(self.clips).__name__} has none.'
      )
    clips = self.clips.open(decoder, objective.rate)
    return self._evaluator(decoder, clips)

  def _evaluator(self, decoder, clips):
    return _Evaluator(decoder, clips, self.baselines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds(Bits):
  """`Bits` of a masked decoder from many draws, and of sampling in few steps.

  In addition to those of `Bits` there are `bits_per_frame_in_T_steps`, the bound
  of codes that are sampled in T steps a stage in random order, and the curve
  'bits_per_frame by steps': what speed costs.

  Attributes:
    clips: see `Bits`.
    baselines: see `Bits`.
    draws: of a bound, for each clip. A multiple of the stages draws each as
      often.
    steps: T, each of them.
    schedule: of those steps; see `processes.discrete.Absorbing`.
  """

  draws: config.Positive = 8
  steps: tuple[config.Positive, ...] = ()
  schedule: Literal['linear', 'cosine'] = 'linear'

  def build(self, objective):
    """The evaluator.

    Raises:
      config.ConfigError: for a decoder that is not masked, a schedule of no
        steps, and what `Bits` refuses.
    """
    decoder = objective.decoder
    if not isinstance(decoder, masked_lib.Masked):
      raise config.ConfigError(
          f'an evaluator of bounds, but the decoder is a'
          f' {type(decoder).__name__}: expected a masked one'
      )
    if self.schedule != 'linear' and not self.steps:
      raise config.ConfigError(
          f'schedule = {self.schedule!r} does nothing without steps.'
      )
    return super().build(objective)

  def _evaluator(self, decoder, clips):
    in_steps = {
        steps: masked_lm.shares(decoder, steps, self.schedule)
        for steps in self.steps
    }
    return _Evaluator(decoder, clips, self.baselines, self.draws, in_steps)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, decoder, clips, baselines, draws=1, steps=()):
    self._decoder = decoder
    self._clips = clips
    self._baselines = baselines
    self._draws = draws
    self._steps = dict(steps)

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    decoder, params = self._decoder, variables['lm']['params']
    streams = {k: s for k, s in decoder.streams.items() if s.slots}
    for batch in self._clips.batches():
      scores = jax.device_get(self._score(params, batch).streams)
      in_steps = {
          steps: jax.device_get(self._score(params, batch, keep)['frames'])
          for steps, keep in self._steps.items()
      }
      for row, index in enumerate(batch['id']):
        if index < 0:
          continue
        item, others = self._clips.item(index), {}
        if self._baselines:
          others = self._clips.baselines(index)
        for label, stream in streams.items():
          length = int(batch[stream.lengths][row])
          if length:
            nats = -scores[label].log_prob[row, :length]
            for prefix, bits in {'': _bits(stream, nats), **others}.items():
              yield from _entries(stream, prefix, item, bits, length)
            for steps, of_steps in in_steps.items():
              nats = -float(of_steps.log_prob[row, :length].sum())
              yield from _in_steps(stream.metric, steps, item, nats, length)

  def _score(self, params, batch, keep=None):
    decoder, inputs = self._decoder, self._decoder.read(batch)
    if decoder.tag != 'bound':
      return scoring.score(decoder, params, inputs)
    # By the clips' own numbers: rows without one are not looked at.
    keys = noise_lib.row_keys(jax.random.key(0), np.maximum(batch['id'], 0))
    return scoring.bound(decoder, params, inputs, keys, self._draws, keep)[0]


def _bits(stream, nats):
  """Bits of each code [N, K], or [] of all where slots are not reported apart."""
  if stream.by_slot:
    return scores_lib.bits(nats)
  # Sums over many samples.
  return scores_lib.bits(nats.astype(np.float64).sum())


def _entries(stream, prefix, item, bits, length):
  """The scores of one clip from its bits under one model."""
  name, slots = f'{prefix}{stream.metric}', list(stream.slots)
  if not stream.by_slot:
    weight = float(length * len(slots))
    yield evaluation_base.Score(name, item, float(bits), weight)
    return
  yield from _by_position(name, item, bits[:, slots].sum(1))
  total = float(bits[:, slots].sum())
  yield evaluation_base.Score(name, item, total, float(length))
  for slot in slots:
    yield evaluation_base.Score(
        f'{name}_codebook_{slot}',
        item,
        float(bits[:, slot].sum()),
        float(length),
    )


def _in_steps(metric, steps, item, nats, length):
  """The scores of one clip from its nats if it is sampled in so many steps."""
  bits, weight = scores_lib.bits(nats), float(length)
  name = f'{metric}_in_{steps}_steps'
  yield evaluation_base.Score(name, item, bits, weight)
  point = 'steps', float(steps)
  yield evaluation_base.Score(metric, item, bits, weight, point)


def _by_position(name, item, bits):
  """Points of the curve by position, from the bits of each frame of a clip."""
  last = int(np.log2(len(bits)))
  starts = 2 ** np.arange(last + 1)
  sums = np.add.reduceat(bits.astype(np.float64), starts - 1)
  counts = np.diff([*(starts - 1), len(bits)])
  for start, total, count in zip(starts, sums, counts, strict=True):
    yield evaluation_base.Score(
        name, item, float(total), float(count), ('frame', float(start))
    )
