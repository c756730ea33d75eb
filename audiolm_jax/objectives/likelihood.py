"""The likelihood of given codes: of frames, of segments or of samples."""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.backbones import mlps
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import initial
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.models import kinds
from audiolm_jax.objectives import base as objectives_base

# Of a backbone with experts, unless the config says otherwise.
_EXPERTS = {'load_balance': 0.01, 'router_z': 0.001}


@dataclasses.dataclass(frozen=True)
class NLL(objectives_base.Objective):
  """Negative log-likelihood of every predicted code of every row.

  One model, 'lm'. What batches hold is the decoder's to say: see its
  `example_batch`. Dropout, that of conditions, and a head that trains on a part
  of the steps are at work in training only; metrics of such a head are unbiased
  estimates.

  Attributes:
    decoder: the model.
    lengths: frames (or samples) of training's rows, for each of the decoder's
      streams: 'frames', 'samples', or the labels of segments. Those that are not
      named have the data's.
    rate: frames (or samples) a second of the stream that stands for audio; None
      for the data's.
    audio: the stream that stands for audio; None for the last one.
    weights: by stream, the weight of the mean over its codes; 1 for those that
      are not named.
    init_embeddings: start code embeddings and the head from the vectors of the
      codec whose codes are in config.data.cache; otherwise from random ones. For
      frames only.
    load_balance: weight of the loss that spreads steps over experts (2101.03961,
      eq. 4). For a backbone with experts only, where None is 0.01.
    router_z: weight of the loss that keeps the logits of the experts' router
      small (2202.08906, eq. 5). For a backbone with experts only, where None is
      0.001.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LM_KINDS)]
  lengths: Annotated[Any, config.Named(config.Positive)] = dataclasses.field(
      default_factory=dict
  )
  rate: Annotated[float | None, config.Range(min=1e-3, max=1e9)] = None
  audio: str | None = None
  weights: Annotated[Any, config.Named(config.NonNegative)] = dataclasses.field(
      default_factory=dict
  )
  init_embeddings: bool = False
  load_balance: config.NonNegative | None = None
  router_z: config.NonNegative | None = None

  def __post_init__(self):
    streams = self.decoder.streams
    predicted = [label for label, stream in streams.items() if stream.slots]
    for name, labels, known in (
        ('lengths', self.lengths, list(streams)),
        ('weights', self.weights, predicted),
        ('audio', [self._audio], list(streams)),
    ):
      unknown = sorted(set(labels) - set(known))
      if unknown:
        raise config.ConfigError(
            f'config.objective.{name} names {unknown}: expected some of the'
            f' streams {known} of the decoder, a {type(self.decoder).__name__}.'
        )
    if 'frames' not in streams:
      if self.init_embeddings:
        raise config.ConfigError(
            f'config.objective.init_embeddings = True: the streams'
            f' {list(streams)} are no frames of a codec.'
        )
      if getattr(self.decoder, 'conditions', None):
        raise config.ConfigError(
            'config.objective.decoder.conditions: batches of segments hold'
            ' none; make them segments that are observed.'
        )
    for name in _EXPERTS:
      if getattr(self, name) is not None and not self._has_experts:
        raise config.ConfigError(
            f'config.objective.{name} = {getattr(self, name)}: the decoder has'
            ' no experts.'
        )

  @property
  def _audio(self):
    return self.audio or list(self.decoder.streams)[-1]

  @property
  def _has_experts(self):
    backbone = getattr(self.decoder, 'backbone', None)
    return isinstance(getattr(backbone, 'mlp', None), mlps.Moe)

  def needs(self, source: Any) -> dict[str, tuple[str, Any]]:
    label, decoder = self._audio, self.decoder
    if label != 'samples':
      key, sizes = 'decoder.vocabularies, number of', decoder.slots(label)
      return {'codebooks': (key, len(sizes))}
    needs = {'channels': ('decoder.channels', decoder.channels)}
    rate = getattr(source, 'sample_rate', None)
    if self.rate is not None:
      rate = self.rate
      needs['sample_rate'] = 'rate', round(rate)
    if decoder.stack.local and rate is not None:
      key = 'rate / decoder.stack.local_hop'
      needs['feature_rate'] = key, rate / decoder.stack.local_hop
    return needs

  def with_data(self, source: Any, read: bool) -> 'NLL':
    key = 'config.objective.lengths'
    lengths = {
        label: objectives_base.row_length(
            label, self.lengths.get(label), source, f'{key}.{label}'
        )
        for label in self.decoder.streams
    }
    rate, theirs = self.rate, self._rate_of(source, read)
    if rate is None:
      rate = theirs
    elif theirs is not None and not math.isclose(rate, theirs, rel_tol=1e-3):
      raise config.ConfigError(
          f'config.objective.rate = {rate:g}, but config.data has {theirs:g} a'
          ' second: leave it to the data, or give the same.'
      )
    if read:
      config.check_given('config.objective', {'rate': rate}, 'config.data')
    lengths = {k: n for k, n in lengths.items() if n is not None}
    return dataclasses.replace(self, lengths=lengths, rate=rate)

  def _rate_of(self, source, read) -> float | None:
    """The rate of the data, whose vocabularies must be the decoder's."""
    if self._audio == 'samples':
      rate = getattr(source, 'sample_rate', None)
      return None if rate is None else float(rate)
    if hasattr(source, 'vocabularies'):
      self._check(source.vocabularies, 'config.data')
    if not (read and hasattr(source, 'cache')):
      return None
    header = token_cache.read_header(source.cache)
    self._check(header.vocabularies, f'config.data.cache ({source.cache})')
    return header.spec.frame_rate

  def _check(self, available, where) -> None:
    """Refuses data of other vocabularies than the decoder's."""
    sizes = tuple(
        self.decoder.vocabularies[k] for k in self.decoder.slots(self._audio)
    )
    if available[: len(sizes)] != sizes:
      raise config.ConfigError(
          f'config.objective.decoder.vocabularies: {sizes} of {self._audio}, but'
          f' {where} has {available or "continuous tokens"}.'
      )

  @property
  def loss_weights(self) -> dict[str, float]:
    losses = {
        stream.term: self.weights.get(label, 1.0)
        for label, stream in self.decoder.streams.items()
        if stream.slots
    }
    if self._has_experts:
      for name, usual in _EXPERTS.items():
        given = getattr(self, name)
        losses[name] = usual if given is None else given
    return losses

  @property
  def conditions(self) -> dict[str, Any]:
    modules = getattr(self.decoder, 'conditions', {})
    return {name: module.source for name, module in modules.items()}

  def initial_values(self, source: Any) -> dict[str, Any]:
    if not self.init_embeddings:
      return {}
    if not hasattr(source, 'cache'):
      raise config.ConfigError(
          'config.objective.init_embeddings = True: config.data, a'
          f' {type(source).__name__}, has no token cache.'
      )
    vectors = token_cache.read_codebooks(source.cache)
    sizes = (vectors.shape[1],) * len(self.decoder.vocabularies)
    if len(vectors) < len(sizes) or self.decoder.vocabularies != sizes:
      raise config.ConfigError(
          f'config.objective.init_embeddings = True: config.data.cache ='
          f' {source.cache!r} has {len(vectors)} codebooks of'
          f' {vectors.shape[1]}, but'
          f' config.objective.decoder.vocabularies ='
          f' {self.decoder.vocabularies}.'
      )
    decoder = self.decoder
    values = initial.from_codebooks(
        vectors[: len(sizes)],
        decoder.backbone.width,
        decoder.head,
        decoder.step_layout,
    )
    if decoder.tie:
      del values['head']
    return {'lm': {'params': values}}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    missing = sorted(set(self.decoder.streams) - set(self.lengths))
    if missing:
      raise config.ConfigError(
          f'config.objective.lengths has no {missing}, and neither has'
          ' config.data: give it.'
      )
    return {
        **self.decoder.example_batch(batch_size, self.lengths),
        'id': np.zeros(batch_size, np.int32),
    }

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    scores = self.decoder.apply(
        {'params': variables['lm']['params']},
        *self.decoder.read(batch),
        rngs=_rngs(rng),
        method='score',
    )
    terms, metrics = {}, {}
    for label, stream in self.decoder.streams.items():
      if stream.slots:
        count = jnp.sum(batch[stream.lengths]).astype(jnp.float32)
        nats = nats_by_slot(scores[label], count)
        nats = {slot: nats[slot] for slot in stream.slots}
        total, codes = sum(nats.values()), count * len(nats)
        terms[stream.term] = total, codes
        metrics[stream.metric] = (
            scores_lib.bits(total),
            count if stream.by_slot else codes,
        )
        if stream.by_slot:
          for slot, value in nats.items():
            name = f'{stream.metric}_codebook_{slot}'
            metrics[name] = scores_lib.bits(value), count
    for name, loss in scores.losses.items():
      steps = jnp.sum(scores.steps).astype(jnp.float32)
      terms[name] = jnp.sum(loss), steps
    return objectives_base.Output(terms=terms, metrics=metrics)

  @property
  def model(self) -> tuple[str, kinds.Description]:
    return 'lm', kinds.Description(self.decoder, self.rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    lengths = batch[self.decoder.streams[self._audio].lengths]
    return float(np.sum(lengths)) / self.rate


def nats_by_slot(
    scores: scores_lib.StreamScores, count: Float[Array, '']
) -> Float[Array, 'K']:
  """Negative log-likelihoods of all valid frames (or samples), slot by slot.

  Where a head scored only some of them (see `heads.Head`), chosen at random, it
  is an unbiased estimate: their mean times the number of frames.

  Args:
    scores: of a batch.
    count: how many valid frames it has.
  """
  scored = jnp.sum(scores.mask, axis=(0, 1)).astype(jnp.float32)
  factor = jnp.where(scored == count, 1, count / jnp.maximum(scored, 1))
  return -factor * jnp.sum(scores.log_prob, axis=(0, 1))


def _rngs(rng):
  """Streams of a training step.

  Those of dropout, of the steps that a head trains on, of conditions to drop and
  of bounds.
  """
  streams = 'frames', 'conditions', 'bound'
  return {
      'dropout': rng,
      **{k: jax.random.fold_in(rng, 1 + i) for i, k in enumerate(streams)},
  }
