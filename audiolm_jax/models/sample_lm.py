"""Models of samples of audio, with their parameters."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.generation import plain_tracks
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.training import costs

# Samples that are generated in one call: any duration compiles one loop.
_RUN = 8192


@dataclasses.dataclass(frozen=True)
class SampleLM:
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
  ) -> scores_lib.Scores:
    """Log-probabilities of the stream 'samples'; compiles for each shape.

    Args:
      audio: amplitudes in [-1, 1), rounded to the grid.
      num_samples: samples of each row; T for all if not given.
      context: what the decoder's stack is conditioned on, for all of a row.

    Raises:
      ValueError: for a wrong shape, for integers, for samples that are not
        finite, or lengths that are out of range.
    """
    audio, num_samples = self._check(audio, num_samples)
    samples = waveform_heads.to_grid(audio, self.decoder.bits)
    inputs = samples, num_samples, context
    return scoring.score(self.decoder, self.params, inputs)

  def bits_per_sample(
      self,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'] | None = None,
      context: streaming_base.Context = None,
  ) -> Float[np.ndarray, 'B']:
    """Bits a sample (of one channel) of each row; NaN for an empty one."""
    scores = self.score(audio, num_samples, context)['samples']
    # Sums over many samples.
    log_prob = np.asarray(scores.log_prob, np.float64)
    counts = np.asarray(scores.mask).sum(axis=(1, 2))
    return rows_lib.bits(log_prob, counts)

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
    if not 0 <= seconds < math.inf:
      raise ValueError(f'seconds = {seconds}: expected a finite number >= 0')
    bits, total = self.decoder.bits, round(seconds * self.sample_rate)
    longest = prompt.shape[1]
    if total < longest:
      raise ValueError(f'{total} samples < the prompt has: {longest}')
    session = self.session(
        prompt,
        num_samples=num_samples,
        seed=seed,
        temperature=temperature,
        context=context,
    )
    pieces = [session.prompts]
    for first in range(session.prompts.shape[1], total, _RUN):
      pieces.append(session.step(min(_RUN, total - first)))
    samples = jnp.asarray(np.concatenate(pieces, axis=1))
    return np.asarray(waveform_heads.from_grid(samples, bits))

  def session(
      self,
      prompt: Float[Array, 'B P C'],
      *,
      num_samples: Int[Array, 'B'] | None = None,
      seed: int = 0,
      temperature: float = 1.0,
      context: streaming_base.Context = None,
  ) -> generation.SampleSession:
    """Rows that go on block by block, and can be fed.

    Args:
      prompt: how the rows begin; P = 0 for no prompt.
      num_samples: samples of each row's prompt, P for all if not given.
      seed: the same seed gives the same audio.
      temperature: see `decoders.waveform_heads`; 0 takes the likeliest.
      context: what the decoder's stack is conditioned on, for all of a row.

    Raises:
      ValueError: for a temperature below 0 or not finite; for a wrong shape,
        for integers, for samples that are not finite, or lengths that are out
        of range.
    """
    prompt, num_samples = self._check(prompt, num_samples)
    if not 0 <= temperature < math.inf:
      raise ValueError(
          f'temperature = {temperature}: expected a finite number >= 0'
      )
    return generation.SampleSession(
        self.decoder,
        self.params,
        np.asarray(waveform_heads.to_grid(prompt, self.decoder.bits)),
        num_samples,
        jax.random.key(seed),
        temperature,
        context,
    )

  def generation_flops(
      self, seconds: float, context: streaming_base.Context = None
  ) -> float:
    """FLOPs of `generate` for one row without a prompt: a step a sample.

    Nothing is run: parameters and context may be shapes.

    Args:
      seconds: of audio, to whole samples.
      context: what the decoder's stack is conditioned on, of one row.

    Raises:
      ValueError: for a duration below 0 or without an end.
    """
    samples = rows_lib.duration(seconds, self.sample_rate)

    def step(params, context):
      track = plain_tracks.Samples(self.decoder, params, context=context)
      state = generation.start(track, jnp.ones(1, int), 0, jax.random.key(0))
      none = jnp.zeros((1, track.group), jnp.int32)
      # Log-probabilities take the same product with the head's weights.
      return generation.step(track, state, none, none > 0)[1]

    return samples * costs.flops(step, self.params, context)

  def _check(self, audio, num_samples):
    """Host arrays, checked."""
    audio = np.asarray(audio)
    if audio.size and audio.dtype.kind != 'f':
      raise ValueError(f'audio is {audio.dtype}: expected floats in [-1, 1)')
    audio = audio.astype(np.float32)
    channels = self.decoder.channels
    if audio.ndim != 3 or audio.shape[2] != channels:
      raise ValueError(f'audio {audio.shape}: expected [B, T, {channels}]')
    num_samples = rows_lib.lengths(num_samples, audio.shape, 'audio')
    valid = np.arange(audio.shape[1]) < num_samples[:, None]
    if not np.isfinite(audio[valid]).all():
      raise ValueError('audio has samples that are not finite')
    return audio, num_samples
