"""Autoregressive modelling of samples of audio, on a grid of levels."""

import dataclasses
import functools
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.generation import waveform
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import likelihood
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base

# Samples that are generated in one call: any duration compiles one loop.
_RUN = 8000


@functools.partial(jax.jit, static_argnames='decoder')
def score(
    decoder: wavenet.WaveNet,
    params: Any,
    audio: Float[Array, 'B T C'],
    num_samples: Int[Array, 'B'],
    context: streaming_base.Context = None,
) -> decoder_lib.Scores:
  """Log-probabilities of amplitudes, rounded to the decoder's grid."""
  return sharding.whole(_score(decoder, params, audio, num_samples, context))


def _score(decoder, params, audio, num_samples, context):
  """`score`, each device having its own rows."""
  samples = waveform_heads.to_grid(audio, decoder.bits)
  return decoder.apply(
      {'params': params}, samples, num_samples, context, method='score'
  )


_row_scores = jax.jit(_score, static_argnames='decoder')


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
  samples: Annotated[int, config.Range(min=1)] = 8000
  sample_rate: Annotated[int, config.Range(min=1)] = 16000

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
    scores = _row_scores(
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

  def bind(self, variables: objectives_base.Variables) -> 'BoundWaveform':
    params = nn.meta.unbox(variables['lm']['params'])
    return BoundWaveform(self.decoder, params, self.sample_rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_samples'])) / self.sample_rate


@dataclasses.dataclass(frozen=True)
class BoundWaveform:
  """A model of samples with its parameters: what `audiolm_jax.load` returns.

  Attributes:
    decoder: the model.
    params: its parameters.
    sample_rate: samples a second.
  """

  decoder: wavenet.WaveNet
  params: Any
  sample_rate: int

  def score(
      self,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'] | None = None,
      context: streaming_base.Context = None,
  ) -> decoder_lib.Scores:
    """Log-probabilities of samples; compiles once for each shape.

    Args:
      audio: amplitudes in [-1, 1), rounded to the grid.
      num_samples: samples of each row; T for all if not given.
      context: what the decoder's stack is conditioned on, for all of a row.

    Raises:
      ValueError: for a wrong shape, for integers, for samples that are not
        finite, or lengths that are out of range.
    """
    audio, num_samples = self._check(audio, num_samples)
    return score(self.decoder, self.params, audio, num_samples, context)

  def bits_per_sample(
      self,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'] | None = None,
      context: streaming_base.Context = None,
  ) -> Float[np.ndarray, 'B']:
    """Bits a sample (of one channel) of each row; NaN for an empty one."""
    scores = self.score(audio, num_samples, context)
    # Sums over many samples.
    log_prob = np.asarray(scores.log_prob, np.float64)
    counts = np.asarray(scores.mask).sum(axis=(1, 2))
    return likelihood.row_bits(log_prob, counts)

  def generate(
      self,
      prompt: Float[Array, 'B P C'],
      seconds: float,
      *,
      num_samples: Int[Array, 'B'] | None = None,
      seed: int = 0,
      temperature: float = 1.0,
      context: streaming_base.Context = None,
  ) -> Float[np.ndarray, 'B T C']:
    """Continues prompts.

    Args:
      prompt: the audio to continue; P = 0 for none.
      seconds: of the result, prompt included.
      num_samples: samples of each row's prompt, P for all if not given.
      seed: the same seed gives the same audio.
      temperature: see `decoders.waveform_heads`; 0 takes the likeliest.
      context: what the decoder's stack is conditioned on, for all of a row.

    Returns:
      Each row's prompt, rounded to the grid, and its continuation.

    Raises:
      ValueError: if the result is shorter than the prompt or has no end, for a
        temperature below 0 or not finite, or see `score`.
    """
    prompt, num_samples = self._check(prompt, num_samples)
    for name, value in (('seconds', seconds), ('temperature', temperature)):
      if not 0 <= value < math.inf:
        raise ValueError(f'{name} = {value}: expected a finite number >= 0')
    bits, total = self.decoder.bits, round(seconds * self.sample_rate)
    rows, longest, channels = prompt.shape
    if total < longest:
      raise ValueError(f'{total} samples < the prompt has: {longest}')
    given = np.asarray(waveform_heads.to_grid(prompt, bits))
    first = int(num_samples.min()) if rows else 0
    state = waveform.start(
        self.decoder,
        self.params,
        given[:, :first],
        jax.random.key(seed),
        context,
    )
    size = min(max(total - first, 1), _RUN)
    count = -(-(total - first) // size)
    pieces = [given[:, :first]]
    for i in range(count):
      # The last run goes on past the end, so that all have one shape.
      steps = first + i * size + np.arange(size)
      known = np.zeros((rows, size, channels), np.int32)
      here = given[:, steps[0] : steps[0] + size]
      known[:, : here.shape[1]] = here
      state, samples, _ = waveform.run(
          self.decoder,
          self.params,
          state,
          known,
          steps < num_samples[:, None],
          temperature,
          context,
      )
      pieces.append(np.asarray(samples))
    samples = np.concatenate(pieces, axis=1)[:, :total]
    return np.asarray(waveform_heads.from_grid(jnp.asarray(samples), bits))

  def _check(self, audio, num_samples):
    """Host arrays, checked."""
    audio = np.asarray(audio)
    if audio.size and audio.dtype.kind != 'f':
      raise ValueError(f'audio is {audio.dtype}: expected floats in [-1, 1)')
    audio = audio.astype(np.float32)
    channels = self.decoder.channels
    if audio.ndim != 3 or audio.shape[2] != channels:
      raise ValueError(f'audio {audio.shape}: expected [B, T, {channels}]')
    num_samples = likelihood.row_lengths(num_samples, audio.shape, 'audio')
    valid = np.arange(audio.shape[1]) < num_samples[:, None]
    if not np.isfinite(audio[valid]).all():
      raise ValueError('audio has samples that are not finite')
    return audio, num_samples
