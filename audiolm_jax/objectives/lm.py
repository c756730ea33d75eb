"""Autoregressive language modelling of token frames."""

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import initial
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders.heads import independent
from audiolm_jax.models import token_lm
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import likelihood

_DECODERS = (decoder_lib.Decoder, segmented.Staged)


@dataclasses.dataclass(frozen=True)
class LM(objectives_base.Objective):
  """Negative log-likelihood of every code of every valid frame.

  One model, 'lm'. Batches hold `codes` [B, F, K], `num_frames` [B] in frames, and
  what `factors.flatten` makes of the decoder's conditions.
  Dropout, that of conditions, and a head that trains on a part of the steps are
  at work in training only; the last one's metrics are unbiased estimates.

  Attributes:
    decoder: the model, of frames: 'tokens' or 'stages'.
    frames: F of training's crops.
    frame_rate: frames a second, for throughput and durations.
    codebooks: directory of the token cache whose codec's vectors the code
      embeddings and an independent head start from; None starts from random
      ones.
    load_balance: weight of the loss that spreads steps over experts, if the
      backbone has any (2101.03961, eq. 4).
    router_z: weight of the loss that keeps their router's logits small
      (2202.08906, eq. 5).
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LM_KINDS)]
  frames: config.Positive = 256
  frame_rate: config.NonNegative = 50.0
  codebooks: Annotated[str, config.Path()] | None = None
  load_balance: config.NonNegative = 0.01
  router_z: config.NonNegative = 0.001

  def __post_init__(self):
    if not isinstance(self.decoder, _DECODERS):
      raise config.ConfigError(
          f'config.objective.decoder is a {type(self.decoder).__name__}, which'
          " does not decode frames: expected kind 'tokens' or 'stages'."
      )

  def facts(self, key: str) -> list[config.Fact]:
    """What data and evaluators may also say; see `config.Fact`."""
    found = [
        config.Fact('frame rate', f'{key}.frame_rate', self.frame_rate),
        config.Fact('length of a row', f'{key}.frames', self.frames),
        config.Fact(
            'codes a frame',
            f'{key}.decoder.vocabularies, number of',
            len(self.decoder.vocabularies),
        ),
        config.Fact(
            'vocabularies',
            f'{key}.decoder.vocabularies',
            tuple(self.decoder.vocabularies),
        ),
    ]
    if self.codebooks is not None:
      found += token_cache.facts(self.codebooks, f'{key}.codebooks')
    return found

  @property
  def loss_weights(self) -> dict[str, float]:
    names = likelihood.loss_names(self.decoder.backbone)
    return {'nll': 1.0, **{name: getattr(self, name) for name in names}}

  def init(self, rng: Array) -> objectives_base.Variables:
    batch = self.example_batch(1)
    variables = self.decoder.init(
        rng,
        batch['codes'],
        batch['num_frames'],
        conditions=self._conditions(batch),
        method='score',
    )
    return {'lm': {'params': variables['params'], 'state': {}}}

  @property
  def conditions(self) -> dict[str, Any]:
    modules = self.decoder.conditions
    return {name: module.source for name, module in modules.items()}

  def initial_values(self) -> dict[str, Any]:
    if self.codebooks is None:
      return {}
    vectors = token_cache.read_codebooks(self.codebooks)
    sizes = (vectors.shape[1],) * len(self.decoder.vocabularies)
    if len(vectors) < len(sizes) or self.decoder.vocabularies != sizes:
      raise config.ConfigError(
          f'config.objective.codebooks = {self.codebooks!r} has'
          f' {len(vectors)} codebooks of {vectors.shape[1]}, but'
          f' config.objective.decoder.vocabularies ='
          f' {self.decoder.vocabularies}.'
      )
    width = self.decoder.backbone.width
    values = initial.from_codebooks(vectors[: len(sizes)], width)
    apart = isinstance(self.decoder.head, independent.Independent)
    if self.decoder.tie or not apart:
      del values['head']
    return {'lm': {'params': values}}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    slots = len(self.decoder.vocabularies)
    nothing = {
        name: source.prepare([None] * batch_size)
        for name, source in sorted(self.conditions.items())
    }
    return {
        'codes': np.zeros((batch_size, self.frames, slots), np.int32),
        'num_frames': np.zeros(batch_size, np.int32),
        'id': np.zeros(batch_size, np.int32),
        **factors.flatten(nothing),
    }

  def _conditions(self, batch):
    return factors.unflatten(batch, sorted(self.decoder.conditions))

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    scores = self.decoder.apply(
        {'params': variables['lm']['params']},
        batch['codes'],
        batch['num_frames'],
        conditions=self._conditions(batch),
        rngs=likelihood.rngs(rng),
        method='score',
    )
    frames = jnp.sum(batch['num_frames']).astype(jnp.float32)
    nats = likelihood.nats_by_slot(scores, frames)
    nats = {slot: nats[slot] for slot in self.decoder.predicted}
    count = frames * len(nats)
    losses = likelihood.loss_terms(scores.losses, scores.steps)
    return objectives_base.Output(
        terms={'nll': (sum(nats.values()), count), **losses},
        metrics=likelihood.bits_metrics('bits_per_frame', nats, frames),
    )

  def bind(self, variables: objectives_base.Variables) -> token_lm.TokenLM:
    params = nn.meta.unbox(variables['lm']['params'])
    stage = isinstance(self.decoder, segmented.Staged)
    model = token_lm.StageLM if stage else token_lm.TokenLM
    return model(self.decoder, params, self.frame_rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_frames'])) / self.frame_rate
