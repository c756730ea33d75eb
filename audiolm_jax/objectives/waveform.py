"""Autoregressive modelling of samples of audio, on a grid of levels."""

import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.decoders import wavenet
from audiolm_jax.models import sample_lm
from audiolm_jax.objectives import base as objectives_base


@dataclasses.dataclass(frozen=True)
class WaveformLM(objectives_base.Objective):
  """Negative log-likelihood of every valid sample.

  One model, 'lm'. Batches hold `audio` [B, T, C] and `num_samples` [B] in samples.
  A decoder whose stack has a local condition finds it in `teacher` [B, S, E]
  (as `data.AudioCrops` gives features), one with a global condition in `film`
  [B, E].

  Attributes:
    decoder: a decoder of samples, 'wavenet'.
    samples: T of training's crops.
    sample_rate: samples a second.
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LM_KINDS)]
  samples: config.Positive = 8000
  sample_rate: config.Positive = 16000

  loss_weights = {'nll': 1.0}

  def __post_init__(self):
    if not isinstance(self.decoder, wavenet.WaveNet):
      raise config.ConfigError(
          f'config.objective.decoder is a {type(self.decoder).__name__}, which'
          " does not decode samples: expected kind 'wavenet'."
      )

  def facts(self, key: str) -> list[config.Fact]:
    """What data and evaluators may also say; see `config.Fact`."""
    channels = self.decoder.channels
    found = [
        config.Fact('sample rate', f'{key}.sample_rate', self.sample_rate),
        config.Fact('channels', f'{key}.decoder.channels', channels),
        config.Fact('length of a row', f'{key}.samples', self.samples),
    ]
    stack = self.decoder.stack
    if stack.local:
      where = f'{key}.sample_rate / decoder.stack.local_hop'
      value = self.sample_rate / stack.local_hop
      found.append(config.Fact('feature rate', where, value))
    return found

  def init(self, rng: Array) -> objectives_base.Variables:
    # Parameters do not depend on the length.
    batch = dataclasses.replace(self, samples=1).example_batch(1)
    samples = np.zeros(batch['audio'].shape, np.int32)
    variables = self.decoder.init(
        rng, samples, batch['num_samples'], self._context(batch), method='score'
    )
    return {'lm': {'params': variables['params'], 'state': {}}}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    decoder, stack = self.decoder, self.decoder.stack
    shape = (batch_size, self.samples, decoder.channels)
    batch = {
        'audio': np.zeros(shape, np.float32),
        'num_samples': np.zeros(batch_size, np.int32),
        'id': np.zeros(batch_size, np.int32),
    }
    if stack.local:
      features = -(-self.samples // stack.local_hop)
      shape = (batch_size, features, stack.local)
      batch['teacher'] = np.zeros(shape, np.float32)
    if stack.film:
      batch['film'] = np.zeros((batch_size, stack.film), np.float32)
    return batch

  def _context(self, batch):
    names = {'teacher': 'local', 'film': 'film'}
    return {new: batch[old] for old, new in names.items() if old in batch}

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    del rng
    scores = sample_lm.row_scores(
        self.decoder,
        variables['lm']['params'],
        batch['audio'],
        batch['num_samples'],
        self._context(batch),
    )
    total = jnp.sum(scores.log_prob)
    count = jnp.sum(scores.mask).astype(jnp.float32)
    return objectives_base.Output(
        terms={'nll': (-total, count)},
        metrics={'bits_per_sample': (-total / math.log(2), count)},
    )

  def bind(self, variables: objectives_base.Variables) -> sample_lm.SampleLM:
    params = nn.meta.unbox(variables['lm']['params'])
    return sample_lm.SampleLM(self.decoder, params, self.sample_rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_samples'])) / self.sample_rate
