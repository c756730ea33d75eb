"""Sessions of frames: rows that a decoder of frames goes on with, fed or not."""

from typing import Any

from jaxtyping import Array, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import live_rows
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import steps
from audiolm_jax.generation import tracks
from audiolm_jax.generation import weights


class Session(live_rows.LiveRows):
  """Rows that go on frame by frame, with codes given as they become known.

  With nothing given, the frames are those of `generate` with the same
  arguments. With all codes given, `log_prob` is what `score` gives. All rows
  are equally long; see `live_rows.LiveRows`.
  """

  def __init__(
      self,
      decoder: decoder_lib.Decoder,
      params: Any,
      prompts: Int[np.ndarray, 'B P K'],
      num_frames: Int[np.ndarray, 'B'],
      frames: int | None,
      rng: Array,
      sampler: sampling.Sampler,
      **options,
  ):
    """Takes in the prompts.

    Args:
      decoder: the model; its stack is unrolled if it is not yet.
      params: its parameters.
      prompts: how rows begin, padded to P frames.
      num_frames: frames of each prompt.
      frames: the length of all rows, prompt included; None for no end.
      rng: a key.
      sampler: how codes are drawn.
      **options: see `options.Options`; without an end, a `cache_length` is
        needed.

    Raises:
      ValueError: without an end, if there is no cache_length, or the pattern
        must know the end beforehand; for a `stop` in such a pattern; for more
        steps than there are learned positions; for options that are out of
        range or would do nothing; for codes out of range, a prompt longer than
        its row, or none where rows must start with a given frame.
    """
    decoder, params = weights.unroll(decoder, params)
    chosen = options_lib.Options(**options)
    self._pattern, self._slots = decoder.pattern, len(decoder.vocabularies)
    self._total = _check_end(decoder, frames, chosen)
    prompts, mask = self._fill(decoder, prompts, num_frames)
    chosen.check(decoder)
    asked = chosen.prepare(decoder, params)
    track = tracks.Frames(decoder, params, sampler, **asked)
    ends = np.full(len(prompts), self._total)
    super().__init__(
        track, chosen, rng, prompts, mask, ends, ends, self._find_latency()
    )

  def _fill(self, decoder, prompts, num_frames):
    """Prompts, checked, and with what rows begin with if they have none."""
    prompts, num_frames = np.asarray(prompts), np.asarray(num_frames)
    least = decoder.start.given if self._total else 0
    if (longest := int(num_frames.max(initial=0))) > self._total:
      raise ValueError(f'frames = {self._total} < the prompt has: {longest}')
    extra = max(least - prompts.shape[1], 0)
    prompts = np.pad(prompts, ((0, 0), (0, extra), (0, 0)))
    mask = np.arange(prompts.shape[1])[:, None] < num_frames[:, None, None]
    mask = np.broadcast_to(mask, prompts.shape)
    num_frames = np.maximum(num_frames, least).astype(np.int32)
    checks.check_given(decoder, prompts, mask, num_frames)
    if prompts.shape[1]:
      prompts, mask = map(np.asarray, decoder.start.fill(prompts, mask))
    return prompts, mask

  def _cells(self, step):
    total = np.full(step.shape, self._total)
    frame, slot = self._pattern.cells(step, self._slots, total)
    return np.asarray(frame), np.broadcast_to(slot, frame.shape)

  def _later(self, frame, entered):
    later = frame >= entered
    return later if self._pattern.streamable else later & (frame < self._total)

  def _count(self, frames):
    return np.array([self._pattern.steps(int(n), self._slots) for n in frames])

  def _prompt(self):
    longest = self._given.shape[1]
    shown = np.arange(longest) < self._leading[:, None]
    count = self._track.leading(longest, longest) if longest else 0
    return self._given, shown[..., None], count

  def _check_flush(self):
    if not self._pattern.streamable and (self.entered < self._total).any():
      raise ValueError(
          f'{self._pattern} must know lengths beforehand, which is'
          f' {self._total} frames: step on until then'
      )

  def _find_latency(self):
    """Steps until the first frame is whole, which no later one exceeds."""
    steps_taken, missing = np.zeros(1, np.int64), self._slots
    for number in range(self._total):
      while missing:
        frame, _ = self._cells(steps_taken)
        if self._later(frame, number + 1).any():
          break
        missing -= int((frame == 0).sum())
        steps_taken = steps_taken + 1
      if not missing:
        return number
    return 0


def _check_end(decoder, frames, options):
  """The length of all rows; `ENDLESS` for None."""
  pattern = decoder.pattern
  if frames is None:
    if options.cache_length is None or not pattern.streamable:
      raise ValueError(
          'a stream without an end needs a cache_length and such a pattern'
      )
    decoder.check_steps(None)
    return steps.ENDLESS
  decoder.check_steps(pattern.steps(frames, len(decoder.vocabularies)))
  return frames
