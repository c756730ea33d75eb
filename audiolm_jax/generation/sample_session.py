"""Samples of audio, generated block by block, O(layers) a sample."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import wavenet
from audiolm_jax.generation import checks
from audiolm_jax.generation import live_rows
from audiolm_jax.generation import steps
from audiolm_jax.generation import tracks
from audiolm_jax.streaming import base as streaming_base


@jax.jit
def _start(track, prompts, rng):
  """The state after samples that all prompts have, taken in at once."""
  batch, length, _ = prompts.shape
  state = steps.start(track, jnp.full(batch, length), 0, rng)
  shown = jnp.ones((batch, length, 1), bool)
  return steps.take_prompts(track, state, prompts, shown, length)[0]


@jax.jit
def _run(track, state, given, mask, count):
  """`steps.run` for the next `count` samples."""
  first, none = state.step, jnp.zeros_like(given)
  state = state.replace(frames=first + count)
  return steps.run(track, state, given, mask[..., None], none, first)


class SampleSession:
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
    self._track = tracks.Samples(
        decoder, params, context=context, temperature=temperature
    )
    self._rng = rng
    self._prompts = np.asarray(prompts, np.int32)
    self._num_samples = np.asarray(num_samples)
    self._first = int(self._num_samples.min()) if len(self._num_samples) else 0
    self._state = self._begin()
    self.entered = np.full(len(self._prompts), self._first)
    self.log_prob = np.zeros((len(self._prompts), 0, decoder.channels))

  @property
  def prompts(self) -> Int[np.ndarray, 'B P C']:
    """What has been taken in: the samples that all prompts have."""
    return self._prompts[:, : self._first]

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
    known, inside = self._known(count, given, mask)
    padding = max(1 << (count - 1).bit_length(), 1) - count
    state, samples, log_prob = _run(
        self._track,
        self._state,
        np.pad(known, ((0, 0), (0, padding), (0, 0))),
        np.pad(inside, ((0, 0), (0, padding))),
        count,
    )
    self._state = state
    self.entered = self.entered + count
    self.log_prob = np.asarray(log_prob)[:, :count]
    return np.asarray(samples)[:, :count]

  def reset(self, rows: Bool[np.ndarray, 'B'] | None = None) -> None:
    """Restarts rows with their prompts, as in a new session; None for all."""
    rows = checks.rows(rows, len(self.entered))
    self._state = live_rows.restart(self._state, self._begin(), rows)
    self.entered = np.where(rows, self._first, self.entered)

  def _begin(self):
    return _start(self._track, self.prompts, self._rng)

  def _known(self, count, given, mask):
    """What is given of the next samples: by prompts, and by who steps."""
    rows, longest, channels = self._prompts.shape
    if count < 0:
      raise ValueError(f'count = {count}: expected at least 0 samples')
    shape = rows, count, channels
    given, mask = checks.fed(given, mask, shape, shape[:2])
    half = 2 ** (self._track.decoder.bits - 1)
    wrong = mask[..., None] & ((given < -half) | (given >= half))
    if wrong.any():
      raise ValueError(
          f'given: {given[wrong][0]} is not in [-{half}, {half - 1}]'
      )
    index = self.entered[:, None] + np.arange(count)
    shown = index < self._num_samples[:, None]
    if longest:
      at = np.arange(rows)[:, None], np.minimum(index, longest - 1)
      given = np.where(shown[..., None], self._prompts[at], given)
    return given.astype(np.int32), mask | shown
