"""Sessions: generation frame by frame, fed with what others say meanwhile."""

from collections.abc import Iterator
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.generation import checks
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import steps
from audiolm_jax.generation import tracks
from audiolm_jax.generation import weights


@functools.partial(jax.jit, donate_argnames='state')
def _step(track, state, given, mask, rows):
  """`steps.step`; unless `rows` is None, those rows only."""
  new, codes, log_prob = steps.step(track, state, given, mask)
  if rows is not None:
    new = steps.restart(state, new, rows)
  return new, codes, log_prob


_take_prompts = jax.jit(
    steps.take_prompts, static_argnames='count', donate_argnames='state'
)
_restart = jax.jit(steps.restart)


class Session:
  """Rows that go on frame by frame, with codes given as they become known.

  With nothing given, the frames are those of `generate` with the same
  arguments. With all codes given, `log_prob` is what `score` gives.

  Attributes:
    latency: steps between a frame's codes going in and the frame coming out,
      because the pattern has some of its slots in later steps.
    prompts: [B, P, K] how rows begin.
    entered: [B] frames that each row has taken in, its prompt included.
    log_prob: [B, K] of the frame that `step` gave last, under the model itself;
      0 for prompts, which are taken in at once. After `flush`, [B, L, K].
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
    self._options = options_lib.Options(**options)
    self._decoder, self._pattern = decoder, decoder.pattern
    self._slots = len(decoder.vocabularies)
    self._total = self._check_end(frames)
    self.prompts, self._prompted = self._fill(prompts, num_frames)
    self._options.check(decoder)
    asked = self._options.prepare(decoder, params)
    self._track = tracks.Frames(decoder, params, sampler, **asked)
    self._rng = rng
    self.latency = self._latency()
    self._allocate()
    self._state = self._begin(np.ones(len(self.prompts), bool))

  def _check_end(self, frames):
    """The length of all rows; `ENDLESS` for None."""
    if frames is None:
      if self._options.cache_length is None or not self._pattern.streamable:
        raise ValueError(
            'a stream without an end needs a cache_length and such a pattern'
        )
      self._decoder.check_steps(None)
      return steps.ENDLESS
    self._decoder.check_steps(self._pattern.steps(frames, self._slots))
    return frames

  def _allocate(self):
    """Empty arrays of what is kept of each row."""
    # What is known of the frames that are not given out yet, by frame modulo
    # their number.
    shape = len(self.prompts), self.latency + 1, self._slots
    self._codes = np.zeros(shape, np.int32)
    self._known = np.zeros(shape, bool)
    self._log_prob = np.zeros(shape, np.float32)
    self.log_prob = np.zeros((shape[0], self._slots), np.float32)
    self.entered = np.zeros(shape[0], np.int64)
    self._steps = np.zeros(shape[0], np.int64)
    self._flushed = False

  @property
  def num_frames(self) -> Int[np.ndarray, 'B']:
    """Frames of each row so far, or until its `stop`; waits for the device."""
    return np.minimum(np.asarray(self._state.frames), self.entered)

  def step(
      self,
      given: Int[np.ndarray, 'B K'] | None = None,
      mask: Bool[np.ndarray, 'B K'] | None = None,
  ) -> Int[np.ndarray, 'B K'] | None:
    """Every row goes on by one frame.

    Args:
      given: codes of the frame that goes in. Any slot may be given: those of a
        live user, or those that the model predicts, which it then takes in
        instead of drawing its own.
      mask: where `given` holds codes; None for everywhere.

    Returns:
      The frame that went in `latency` steps before, -1 in rows that have none
      yet, and 0 after a `stop`; None as long as no row has one.

    Raises:
      ValueError: for codes out of range, a slot that the model observes and
        that is not given, more frames than rows have, or after `flush`.
    """
    if self._flushed or (self.entered >= self._total).any():
      raise ValueError(
          'the rows have no further frames: `flush` gives what remains, and'
          ' `reset` restarts all rows'
      )
    shape = self.log_prob.shape[0], self._slots
    given, mask = checks.fed(given, mask, shape, shape)
    observed = np.setdiff1d(np.arange(self._slots), self._decoder.predicted)
    if not mask[:, observed].all():
      raise ValueError(
          f'slots {observed.tolist()} are observed: they must be given'
      )
    ranges.check_codes(
        given[:, None], self._decoder.vocabularies, mask[:, None], 'given'
    )
    at = np.arange(shape[0]), self.entered % (self.latency + 1)
    self._codes[at] = np.where(mask, given, 0)
    self._known[at], self._log_prob[at] = mask, 0
    self.entered = self.entered + 1
    while (rows := self._ready()).any():
      self._advance(rows)
    frame = self.entered - 1 - self.latency
    if (frame < 0).all():
      return None
    codes, log_prob = self._frames(frame[:, None])
    self.log_prob = log_prob[:, 0]
    return codes[:, 0]

  def __iter__(self) -> Iterator[Int[np.ndarray, 'B K']]:
    """All frames, those of prompts first, each as soon as all of it is drawn.

    Rows go on with nothing given, until their length or until all have stopped.

    Raises:
      ValueError: for rows whose prompts are not equally long.
    """
    begun = int(self.entered.min(initial=self._total))
    if (self.entered > begun).any():
      raise ValueError(f'rows stand at frames {self.entered}: step them')
    # `step` gives the prompts' last frames again, as it gives all frames.
    yield from self.prompts[:, : max(begun - self.latency, 0)].swapaxes(0, 1)
    stops = self._track.stop is not None
    while (self.entered < self._total).any():
      codes = self.step()
      out = self.entered - 1 - self.latency
      if stops and (out >= self.num_frames).all():
        return
      if codes is not None:
        yield codes
    rest = self.flush()
    ended = int(min(self.entered - self.num_frames, default=0))
    yield from rest[:, : max(rest.shape[1] - ended, 0)].swapaxes(0, 1)

  def flush(self) -> Int[np.ndarray, 'B L K']:
    """Ends all rows, and gives the frames that went in but not yet came out.

    Returns:
      L = min(latency, frames of the longest row) frames; -1 before the first
      frame of a shorter row, and 0 after a `stop`.

    Raises:
      ValueError: if the pattern knows where rows end, and they are not there.
    """
    if not self._pattern.streamable and (self.entered < self._total).any():
      raise ValueError(
          f'{self._pattern} must know lengths beforehand, which is'
          f' {self._total} frames: step on until then'
      )
    self._flushed = True
    self._state = self._state.replace(
        frames=jnp.minimum(self._state.frames, self.entered.astype(np.int32))
    )
    ends = [self._pattern.steps(int(n), self._slots) for n in self.entered]
    while (rows := self._steps < ends).any():
      self._advance(rows)
    count = min(self.latency, int(self.entered.max()))
    frames = self.entered[:, None] + np.arange(-count, 0)
    codes, self.log_prob = self._frames(frames)
    return codes

  def reset(self, rows: Bool[np.ndarray, 'B'] | None = None) -> None:
    """Restarts rows with their prompts, as in a new session.

    Args:
      rows: which; None for all, also after `flush`.

    Raises:
      ValueError: for some rows only, after `flush`.
    """
    every = np.ones(len(self.entered), bool)
    rows = every if rows is None else np.asarray(rows, bool)
    if self._flushed and not rows.all():
      raise ValueError('all rows have ended: reset all of them')
    self._flushed = False
    fresh = self._begin(rows)
    self._state = _restart(self._state, fresh, rows)

  def _fill(self, prompts, num_frames):
    """Prompts, checked, and with what rows begin with if they have none."""
    prompts, num_frames = np.asarray(prompts), np.asarray(num_frames)
    least = self._decoder.start.given if self._total else 0
    if (longest := int(num_frames.max(initial=0))) > self._total:
      raise ValueError(f'frames = {self._total} < the prompt has: {longest}')
    extra = max(least - prompts.shape[1], 0)
    prompts = np.pad(prompts, ((0, 0), (0, extra), (0, 0)))
    mask = np.arange(prompts.shape[1])[:, None] < num_frames[:, None, None]
    mask = np.broadcast_to(mask, prompts.shape)
    num_frames = np.maximum(num_frames, least).astype(np.int32)
    checks.check_given(self._decoder, prompts, mask, num_frames)
    if prompts.shape[1]:
      prompts, mask = self._decoder.start.fill(prompts, mask)
    return np.where(mask, prompts, 0).astype(np.int32), num_frames

  def _cells(self, step):
    """The frames and slots of one step of each row: [B, G] and [B, G]."""
    total = np.full(step.shape, self._total)
    frame, slot = self._pattern.cells(step, self._slots, total)
    return np.asarray(frame), np.broadcast_to(slot, frame.shape)

  def _latency(self):
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

  def _begin(self, rows):
    """The state after the prompts; what is kept of `rows` begins there, too."""
    batch, longest, slots = self.prompts.shape
    # Rows without a frame begin with none, whatever stands there.
    first = np.zeros((batch, slots), np.int32)
    if longest:
      first = self.prompts[:, 0]
    state = steps.start(
        self._track,
        np.full(batch, self._total, np.int32),
        self._options.cache_length or self._track.count(self._total),
        self._rng,
        self._options.sink_tokens,
        first,
    )
    # A fresh state may use one zero for several leaves: it cannot be donated.
    state = jax.tree.map(functools.partial(jnp.array, copy=True), state)
    shown = np.arange(longest) < self._prompted[:, None]
    count = self._track.leading(longest, longest) if longest else 0
    state, _ = _take_prompts(
        self._track, state, self.prompts, shown[..., None], count
    )
    self.entered = np.where(rows, self._prompted, self.entered)
    self._steps = np.where(rows, np.asarray(state.step), self._steps)
    self._codes[rows], self._log_prob[rows] = 0, 0
    self._known[rows] = False
    for row in np.flatnonzero(rows):
      end, size = int(self._prompted[row]), self.latency + 1
      for frame in range(max(end - size, 0), end):
        self._codes[row, frame % size] = self.prompts[row, frame]
        self._known[row, frame % size] = True
    return state

  def _ready(self):
    """[B] rows whose next step holds nothing of frames that have to come."""
    frame, _ = self._cells(self._steps)
    later = self._later(frame, self.entered[:, None])
    ends = self._pattern.steps(self._total, self._slots)
    return ~later.any(axis=1) & (self._steps < ends)

  def _later(self, frame, entered):
    """Which frames have to come after the first `entered`."""
    if self._pattern.streamable:
      return frame >= entered
    return (frame >= entered) & (frame < self._total)

  def _advance(self, rows):
    """One step of the decoder for `rows`."""
    frame, slot = self._cells(self._steps)
    inside = (frame >= 0) & (frame < self.entered[:, None]) & rows[:, None]
    at = np.arange(len(rows))[:, None], frame % (self.latency + 1), slot
    known = self._known[at] & inside
    self._state, drawn, log_prob = _step(
        self._track,
        self._state,
        np.where(known, self._codes[at], 0),
        known,
        None if rows.all() else rows,
    )
    at = tuple(np.broadcast_to(x, inside.shape)[inside] for x in at)
    self._codes[at] = np.asarray(drawn)[inside]
    self._log_prob[at] = np.asarray(log_prob)[inside]
    self._known[at] = True
    self._steps = self._steps + rows

  def _frames(self, frame):
    """Codes and log-probabilities of frames [B, n] that are kept."""
    at = np.arange(len(frame))[:, None], frame % (self.latency + 1)
    codes, log_prob = self._codes[at], self._log_prob[at]
    if self._options.stop is not None:
      inside = (frame < self.num_frames[:, None])[..., None]
      codes, log_prob = codes * inside, log_prob * inside
    before = (frame < 0)[..., None]
    return np.where(before, -1, codes), np.where(before, 0, log_prob)
