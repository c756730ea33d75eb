"""Samples of audio, generated block by block, O(layers) a sample."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import wavenet
from audiolm_jax.generation import block_session
from audiolm_jax.generation import plain_tracks
from audiolm_jax.streaming import base as streaming_base


class SampleSession(block_session.BlockSession):
  """Rows of samples that go on block by block, with samples given in between.

  With nothing given, all sizes of blocks give the same samples. With all of
  them given, `log_prob` is what `score` gives. Nothing lags behind.

  Attributes:
    entered: [B] samples of each row so far.
    log_prob: [B, n, C] of the samples that `step` gave last (nats), under the
      model itself, at temperature 1.
  """

  def __init__(
      self,
      decoder: wavenet.WaveNet,
      params: Any,
      prompts: Int[np.ndarray, 'B P C'],
      num_samples: Int[np.ndarray, 'B'],
      rng: Array,
      temperature: Float[Array, ''] | float = 1.0,
      context: streaming_base.Context = None,
  ):
    """Takes in what all prompts have.

    Args:
      decoder: the model.
      params: its parameters.
      prompts: how rows begin, levels of the grid, padded to P samples.
      num_samples: samples of each prompt.
      rng: a key.
      temperature: 0 takes the likeliest; see `decoders.waveform_heads`.
      context: what the decoder's stack is conditioned on, for all of a row.
    """
    track = plain_tracks.Samples(
        decoder, params, context=context, temperature=temperature
    )
    super().__init__(track, prompts, num_samples, rng)
    self.log_prob = np.zeros((len(self._prompts), 0, decoder.channels))

  def step(
      self,
      count: int,
      given: Int[np.ndarray, 'B n C'] | None = None,
      mask: Bool[np.ndarray, 'B n'] | None = None,
  ) -> Int[np.ndarray, 'B n C']:
    """Every row goes on by `count` samples.

    Blocks are padded to the next power of two, so that few sizes compile.

    Args:
      count: n.
      given: levels of the samples that are known; anything elsewhere.
      mask: where `given` holds samples; None for everywhere.

    Returns:
      The samples, levels of the grid. Where a row's prompt is longer than what
      has been taken in of all, they begin with the rest of it.

    Raises:
      ValueError: for other shapes, or levels that the grid does not have.
    """
    samples, self.log_prob = self._step(count, given, mask)
    return samples

  def _check(self, given, mask):
    half = 2 ** (self._track.decoder.bits - 1)
    wrong = mask[..., None] & ((given < -half) | (given >= half))
    if wrong.any():
      raise ValueError(
          f'given: {given[wrong][0]} is not in [-{half}, {half - 1}]'
      )
