"""Autoregressive modelling of sequences of segments, such as text and speech."""

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.decoders import segmented
from audiolm_jax.models import segment_lm
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import likelihood


@dataclasses.dataclass(frozen=True)
class Segments(objectives_base.Objective):
  """Negative log-likelihoods of the predicted segments of each row.

  One model, 'lm'. For each segment, batches hold `codes/LABEL` [B, F, K], the
  codes of its slots, and `num_frames/LABEL` [B].

  Attributes:
    decoder: the model, of kind 'segments'.
    frames: label -> F of training's rows.
    weights: label -> weight of the mean over its codes, 1 if not given.
    audio: the segment whose frames stand for audio.
    frame_rate: of them, a second.
    load_balance: see `lm.LM`.
    router_z: likewise.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LM_KINDS)]
  frames: Annotated[Any, config.Named(config.Positive)]
  weights: Annotated[Any, config.Named(float)] = dataclasses.field(
      default_factory=dict
  )
  audio: str = 'speech'
  frame_rate: config.NonNegative = 50.0
  load_balance: config.NonNegative = 0.01
  router_z: config.NonNegative = 0.001

  def __post_init__(self):
    if type(self.decoder) is not segmented.Segmented:
      raise config.ConfigError(
          f'config.objective.decoder is a {type(self.decoder).__name__}, which'
          " has no segments: expected kind 'segments'."
      )
    if self.decoder.conditions:
      raise config.ConfigError(
          "config.objective.decoder.conditions: batches of 'segments' hold none;"
          ' make them segments that are observed.'
      )
    labels = [segment.label for segment in self._segments]
    wrong = [k for k in (*self.weights, self.audio) if k not in labels]
    if sorted(self.frames) != sorted(labels) or wrong:
      raise config.ConfigError(
          f'config.objective: segments {labels}, but frames of'
          f' {sorted(self.frames)}, weights of {sorted(self.weights)} and'
          f' audio = {self.audio!r}.'
      )

  def facts(self, key: str) -> list[config.Fact]:
    """What data and evaluators may also say; see `config.Fact`."""
    (slots,) = (s.slots for s in self._segments if s.label == self.audio)
    vocabularies = tuple(self.decoder.vocabularies[slot] for slot in slots)
    return [
        config.Fact('frame rate', f'{key}.frame_rate', self.frame_rate),
        config.Fact(
            'length of a row',
            f'{key}.frames.{self.audio}',
            self.frames[self.audio],
        ),
        config.Fact(
            'vocabularies', f'{key}.decoder.vocabularies', vocabularies
        ),
    ]

  @property
  def _segments(self):
    return self.decoder.sequence.segments

  @property
  def _predicted(self):
    return [s.label for s in self._segments if s.role == 'predict']

  @property
  def loss_weights(self) -> dict[str, float]:
    names = likelihood.loss_names(self.decoder.backbone)
    return {
        **{f'nll_{k}': self.weights.get(k, 1.0) for k in self._predicted},
        **{name: getattr(self, name) for name in names},
    }

  def init(self, rng: Array) -> objectives_base.Variables:
    codes, num_frames = self.split(self.example_batch(1))
    variables = self.decoder.init(rng, codes, num_frames, method='score')
    return {'lm': {'params': variables['params'], 'state': {}}}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    batch = {'id': np.zeros(batch_size, np.int32)}
    for segment in self._segments:
      shape = (batch_size, self.frames[segment.label], len(segment.slots))
      batch[f'codes/{segment.label}'] = np.zeros(shape, np.int32)
      batch[f'num_frames/{segment.label}'] = np.zeros(batch_size, np.int32)
    return batch

  def split(
      self, batch: objectives_base.Batch
  ) -> tuple[dict[str, Int[Array, 'B F K']], dict[str, Int[Array, 'B']]]:
    """A batch's (codes, num_frames), by label."""
    labels = [segment.label for segment in self._segments]
    return tuple(
        {k: batch[f'{name}/{k}'] for k in labels}
        for name in ('codes', 'num_frames')
    )

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    codes, num_frames = self.split(batch)
    scores = self.decoder.apply(
        {'params': variables['lm']['params']},
        codes,
        num_frames,
        rngs=likelihood.rngs(rng),
        method='score',
    )
    terms = likelihood.loss_terms(scores.losses, scores.steps)
    metrics = {}
    for label in self._predicted:
      frames = jnp.sum(num_frames[label]).astype(jnp.float32)
      nats = likelihood.nats_by_slot(scores.segments[label], frames)
      terms[f'nll_{label}'] = jnp.sum(nats), frames * len(nats)
      metrics |= likelihood.bits_metrics(
          f'{label}/bits_per_frame', dict(enumerate(nats)), frames
      )
    return objectives_base.Output(terms=terms, metrics=metrics)

  def bind(self, variables: objectives_base.Variables) -> segment_lm.SegmentLM:
    params = nn.meta.unbox(variables['lm']['params'])
    return segment_lm.SegmentLM(self.decoder, params)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    frames = np.sum(batch[f'num_frames/{self.audio}'])
    return float(frames) / self.frame_rate
