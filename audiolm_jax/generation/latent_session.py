"""Frames of latents, generated block by block."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import latent_decoder
from audiolm_jax.decoders import latent_heads
from audiolm_jax.generation import block_session
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import plain_tracks
from audiolm_jax.generation import weights


class LatentSession(block_session.BlockSession):
  """Rows of latents that go on block by block, with frames given in between.

  Latents are as the tokenizer has them. Those that are given come back to the
  bit, but for their type: float32.

  Attributes:
    entered: [B] frames of each row so far, as if it had not ended.
  """

  dtype = np.float32

  def __init__(
      self,
      decoder: latent_decoder.LatentDecoder,
      params: Any,
      prompts: Float[np.ndarray, 'B P L'],
      num_frames: Int[np.ndarray, 'B'],
      rng: Array,
      sampler: latent_heads.LatentSampler,
      **options,
  ):
    """Takes in what all prompts have.

    Args:
      decoder: the model; its stack is unrolled if it is not yet.
      params: its parameters.
      prompts: how rows begin, padded to P frames.
      num_frames: frames of each prompt.
      rng: a key.
      sampler: how frames are drawn.
      **options: `context`, `null_context`, `guidance`, `cache_length` (needed)
        and `sink_tokens` of `options.Options`.

    Raises:
      ValueError: for latents that are not finite, without a cache_length, or
        for a sampler or options that do nothing.
    """
    decoder, params = weights.unroll(decoder, params)
    chosen = options_lib.Options(**options)
    if chosen.stop is not None:
      raise ValueError('rows of latents have no code to stop at: see `ends`')
    if chosen.cache_length is None:
      raise ValueError('a row of latents needs a cache_length')
    chosen.check(decoder)
    decoder.check_sampler(sampler, chosen.guided)
    prompts, num_frames = np.asarray(prompts), np.asarray(num_frames)
    self._check(prompts, np.arange(prompts.shape[1]) < num_frames[:, None])
    track = plain_tracks.Latents(
        decoder, params, options=sampler, **chosen.prepare(decoder, params)
    )
    super().__init__(
        track,
        prompts,
        num_frames,
        rng,
        chosen.cache_length,
        chosen.sink_tokens,
    )

  @property
  def num_frames(self) -> Int[np.ndarray, 'B']:
    """Frames of each row so far, or until its end; waits for the device."""
    return np.minimum(np.asarray(self._state.frames), self.entered)

  def step(
      self,
      count: int,
      given: Float[np.ndarray, 'B n L'] | None = None,
      mask: Bool[np.ndarray, 'B n'] | None = None,
  ) -> Float[np.ndarray, 'B n L']:
    """Every row goes on by `count` frames.

    Args:
      count: n.
      given: frames that are known; anything elsewhere.
      mask: where `given` holds frames; None for everywhere.

    Returns:
      The frames; 0 past a row's end. Where a row's prompt is longer than what
      has been taken in of all, they begin with the rest of it.

    Raises:
      ValueError: for other shapes, or frames that are not finite.
    """
    number = self.entered[:, None] + np.arange(count)
    found, _ = self._step(count, given, mask)
    ended = number >= np.asarray(self._state.frames)[:, None]
    return np.where(ended[..., None], 0, found)

  def __iter__(self) -> Iterator[Float[np.ndarray, 'B L']]:
    """All frames, those of prompts first, until all rows have ended."""
    yield from self.prompts.swapaxes(0, 1)
    while (self.num_frames >= self.entered).any():
      frame = self.step(1)[:, 0]
      if (self.num_frames >= self.entered).any():
        yield frame

  def _to_track(self, values):
    return self._track.decoder.normalised(values)

  def _from_track(self, values):
    return self._track.decoder.restored(values)

  def _check(self, given, mask):
    if not np.isfinite(given[mask]).all():
      raise ValueError('latents are not finite')
