"""What sessions of frames and of segments share: rows that go on and are fed."""

import abc
from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax.decoders import ranges
from audiolm_jax.generation import checks
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import steps
from audiolm_jax.generation import tracks


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
restart = jax.jit(steps.restart)


class LiveRows(abc.ABC):
  """Rows that go on frame by frame, with codes given as they become known.

  The frames of a row are numbered in the order in which they go in. A frame is
  an array of all K slots of the decoder, some of which it may not have.

  Attributes:
    latency: steps between a frame's codes going in and the frame coming out,
      because the pattern has some of its slots in later steps.
    prompts: [B, P, K] how rows begin, padded to P frames; -1 in slots that a
      frame does not have.
    entered: [B] frames that each row has taken in, its prompt included; in rows
      that are at their ends, it goes on as if they had more.
    number: [B] of the frame that `step` gave last, from 0; below 0 in rows that
      have none yet, at or past their length in rows that have no more. After
      `flush`, [B, L].
    log_prob: [B, K] of the frame that `step` gave last, under the model itself;
      0 for prompts, which are taken in at once. After `flush`, [B, L, K].
  """

  def __init__(
      self,
      track: tracks.Frames,
      options: options_lib.Options,
      rng: Array,
      given: Int[np.ndarray, 'B P K'],
      mask: Bool[np.ndarray, 'B P K'],
      totals: Int[np.ndarray, 'B'],
      ends: Int[np.ndarray, 'B'],
      latency: int,
  ):
    """Takes in what is known of the rows' beginnings, up to a first gap.

    Args:
      track: what generates.
      options: of generation.
      rng: a key.
      given: codes of rows' first P frames that are known beforehand.
      mask: where they are known.
      totals: frames of each row at most.
      ends: the same, as `steps.State.frames` has it.
      latency: see the class.
    """
    self._track, self._options, self._rng = track, options, rng
    self._given, self._mask = np.where(mask, given, 0).astype(np.int32), mask
    self._totals, self._ends = totals.astype(np.int64), ends.astype(np.int64)
    batch, longest, self._slots = given.shape
    self.latency = latency
    self.entered = np.zeros(batch, np.int64)
    number = np.tile(np.arange(longest), (batch, 1))
    has = self._has(number)
    known = np.all(mask | ~has, axis=2)
    self._leading = np.minimum(np.cumprod(known, axis=1).sum(axis=1), totals)
    shown = (number < self._leading[:, None])[..., None]
    self.prompts = np.where(has, self._given * shown, -1)
    self.prompts = self.prompts[:, : self._leading.max(initial=0)]
    # What is known of the frames that are not given out yet, by frame modulo
    # their number.
    shape = batch, latency + 1, self._slots
    self._codes = np.zeros(shape, np.int32)
    self._known = np.zeros(shape, bool)
    self._log_prob = np.zeros(shape, np.float32)
    self.log_prob = np.zeros((batch, self._slots), np.float32)
    self._steps = np.zeros(batch, np.int64)
    self._last, self._flushed = self._count(self._totals), False
    self._state = self._begin(np.ones(batch, bool))
    self.number = self.entered - 1 - latency

  # -- what kinds of rows differ in -------------------------------------------

  @abc.abstractmethod
  def _cells(
      self, step: Int[np.ndarray, 'B']
  ) -> tuple[Int[np.ndarray, 'B G'], Int[np.ndarray, 'B G']]:
    """The frames and slots of one step of each row."""

  @abc.abstractmethod
  def _later(
      self, frame: Int[np.ndarray, 'B G'], entered: Int[np.ndarray, 'B 1']
  ) -> Bool[np.ndarray, 'B G']:
    """Which frames have to come after the first `entered`."""

  @abc.abstractmethod
  def _count(self, frames: Int[np.ndarray, 'B']) -> Int[np.ndarray, 'B']:
    """Steps of rows that end after so many frames."""

  @abc.abstractmethod
  def _prompt(self) -> tuple[Array, Array, int]:
    """What `steps.take_prompts` takes: codes, where they are prompts, steps."""

  @abc.abstractmethod
  def _check_flush(self) -> None:
    """Raises ValueError if rows may not end where they are."""

  def _has(self, number: Int[np.ndarray, 'B n']) -> Bool[np.ndarray, 'B n K']:
    """Which slots these frames have; none at or past a row's end."""
    inside = (number >= 0) & (number < self._totals[:, None])
    return np.repeat(inside[..., None], self._slots, axis=2)

  def _observed(self) -> Bool[np.ndarray, 'B K']:
    """Which slots of the frames that go in next are never drawn."""
    observed = np.ones(self._slots, bool)
    observed[list(self._track.decoder.predicted)] = False
    return np.tile(observed, (len(self.entered), 1))

  # ---------------------------------------------------------------------------

  @property
  def num_frames(self) -> Int[np.ndarray, 'B']:
    """Frames of each row so far, or until its `stop`; waits for the device."""
    stopped = self._ends - np.asarray(self._state.frames)
    return np.minimum(self._totals - stopped, self.entered)

  def step(
      self,
      given: Int[np.ndarray, 'B K'] | None = None,
      mask: Bool[np.ndarray, 'B K'] | None = None,
  ) -> Int[np.ndarray, 'B K'] | None:
    """Every row goes on by one frame.

    Args:
      given: codes of the frame that goes in. Any slot may be given: those of a
        live user, or those that the model predicts, which it then takes in
        instead of drawing its own. Slots that a row's frame does not have are
        not looked at.
      mask: where `given` holds codes; None for everywhere.

    Returns:
      The frame that went in `latency` steps before: -1 in slots that it does not
      have, and so in all slots of rows that have no frame (not yet, or no
      more), and of those only; 0 after a `stop`. None as long as no row has
      one.

    Raises:
      ValueError: for codes out of range, a slot that the model observes and
        that is not given, more frames than any row has, or after `flush`.
    """
    if self._flushed or (self.entered >= self._totals).all():
      raise ValueError(
          'the rows have no further frames: `flush` gives what remains, and'
          ' `reset` restarts all rows'
      )
    shape = len(self.entered), self._slots
    given, mask = checks.fed(given, mask, shape, shape)
    mask = mask & self._has(self.entered[:, None])[:, 0]
    ranges.check_codes(
        given[:, None], self._track.decoder.vocabularies, mask[:, None], 'given'
    )
    given, mask = self._with_prompts(given, mask)
    missing = self._observed() & self._has(self.entered[:, None])[:, 0] & ~mask
    if missing.any():
      slots = np.flatnonzero(missing.any(axis=0)).tolist()
      raise ValueError(f'slots {slots} are observed: they must be given')
    at = np.arange(shape[0]), self.entered % (self.latency + 1)
    self._codes[at] = np.where(mask, given, 0)
    self._known[at], self._log_prob[at] = mask, 0
    self.entered = self.entered + 1
    while (rows := self._ready()).any():
      self._advance(rows)
    self.number = self.entered - 1 - self.latency
    if (self.number < 0).all():
      return None
    codes, log_prob = self._frames(self.number[:, None])
    self.log_prob = log_prob[:, 0]
    return codes[:, 0]

  def __iter__(self) -> Iterator[Int[np.ndarray, 'B K']]:
    """All frames, those of prompts first, each as soon as all of it is drawn.

    Rows go on with nothing given, until all are at their ends or have stopped.

    Raises:
      ValueError: for rows whose prompts are not equally long.
    """
    begun = int(self.entered.min(initial=self._totals.max(initial=0)))
    if (self.entered > begun).any():
      raise ValueError(f'rows stand at frames {self.entered}: step them')
    # `step` gives the prompts' last frames again, as it gives all frames.
    yield from self.prompts[:, : max(begun - self.latency, 0)].swapaxes(0, 1)
    stops = self._track.stop is not None
    while (self.entered < self._totals).any():
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
      L = min(latency, frames of the longest row) frames: -1 where a row has
      none, as in `step`, and 0 after a `stop`.

    Raises:
      ValueError: if the pattern knows where rows end, and they are not there.
    """
    self._check_flush()
    self._flushed = True
    totals = np.minimum(self._totals, self.entered)
    ends = np.minimum(self._ends - self._totals + totals, steps.ENDLESS)
    self._state = self._state.replace(
        frames=jnp.minimum(self._state.frames, ends.astype(np.int32))
    )
    last = self._count(totals)
    while (rows := self._steps < last).any():
      self._advance(rows)
    count = min(self.latency, int(self.entered.max()))
    self.number = self.entered[:, None] + np.arange(-count, 0)
    codes, self.log_prob = self._frames(self.number)
    return codes

  def reset(self, rows: Bool[np.ndarray, 'B'] | None = None) -> None:
    """Restarts rows with their prompts, as in a new session.

    Args:
      rows: which; None for all, also after `flush`.

    Raises:
      ValueError: for some rows only, after `flush`.
    """
    rows = checks.rows(rows, len(self.entered))
    if self._flushed and not rows.all():
      raise ValueError('all rows have ended: reset all of them')
    self._flushed = False
    fresh = self._begin(rows)
    self._state = restart(self._state, fresh, rows)

  def _begin(self, rows):
    """The state after the prompts; what is kept of `rows` begins there, too."""
    given, shown, count = self._prompt()
    # Rows without a frame begin with none, whatever stands there.
    first = np.zeros((len(rows), self._slots), np.int32)
    state = steps.start(
        self._track,
        self._ends.astype(np.int32),
        self._options.cache_length
        or self._track.count(int(self._ends.max(initial=0))),
        self._rng,
        self._options.sink_tokens,
        given[:, 0] if given.shape[1] else first,
    )
    # A fresh state may use one zero for several leaves: it cannot be donated.
    state = jax.tree.map(functools.partial(jnp.array, copy=True), state)
    state, _ = _take_prompts(self._track, state, given, shown, count)
    self.entered = np.where(rows, self._leading, self.entered)
    self._steps = np.where(rows, np.asarray(state.step), self._steps)
    self._codes[rows], self._log_prob[rows] = 0, 0
    self._known[rows] = False
    for row in np.flatnonzero(rows):
      end, size = int(self._leading[row]), self.latency + 1
      for frame in range(max(end - size, 0), end):
        self._codes[row, frame % size] = self._given[row, frame]
        self._known[row, frame % size] = True
    return state

  def _with_prompts(self, given, mask):
    """What is given of the frames that go in, with what was known of them."""
    longest = self._given.shape[1]
    if not longest:
      return given, mask
    at = np.arange(len(given)), np.minimum(self.entered, longest - 1)
    inside = (self.entered < longest)[:, None]
    return (
        np.where(mask, given, self._given[at]),
        mask | (self._mask[at] & inside),
    )

  def _ready(self):
    """[B] rows whose next step holds nothing of frames that have to come."""
    frame, _ = self._cells(self._steps)
    later = self._later(frame, self.entered[:, None])
    return ~later.any(axis=1) & (self._steps < self._last)

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
    has = self._has(frame)
    return np.where(has, codes, -1), np.where(has, log_prob, 0)
