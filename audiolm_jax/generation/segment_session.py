"""Sessions of segments: text and speech, or turns, that go on and are fed."""

from typing import Any

from jaxtyping import Array, Bool, Int
import numpy as np

from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import live_rows
from audiolm_jax.generation import options as options_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import tracks
from audiolm_jax.generation import weights


class SegmentSession(live_rows.LiveRows):
  """Rows of segments that go on frame by frame, with codes given meanwhile.

  Every row goes through its own frames: those of one segment after the other's,
  or in turns where segments have chunks. With nothing given, the frames are
  those of `generate` with the same arguments; with all codes given, `log_prob`
  of what is predicted is what `score` gives. See `live_rows.LiveRows`.
  """

  def __init__(
      self,
      decoder: steps_lib.Steps,
      params: Any,
      given: dict[str, Int[np.ndarray, 'B F K']] | Int[np.ndarray, 'B F K'],
      given_mask: (
          dict[str, Bool[np.ndarray, 'B F K']] | Bool[np.ndarray, 'B F K']
      ),
      num_frames: dict[str, Int[np.ndarray, 'B']] | Int[np.ndarray, 'B'],
      rng: Array,
      sampler: sampling.Sampler,
      **options,
  ):
    """Takes in what is known of the rows' beginnings, up to a first gap.

    Args:
      decoder: the model; its stack is unrolled if it is not yet.
      params: its parameters.
      given: for each label, codes that are known beforehand, and anything
        elsewhere; of stages, one array of the frames that they share.
      given_mask: where they are known. Those after a gap are taken in when
        their frames go in, unless `step` is given others.
      num_frames: frames of each row, at most, by label; of stages one array.
      rng: a key.
      sampler: how codes are drawn.
      **options: see `options.Options`.

    Raises:
      ValueError: where no row has a frame; for more steps than there are
        learned positions; for options that are out of range or would do
        nothing; for codes and lengths out of range, and a row without the given
        frame that it must start with.
    """
    checks.check_given(decoder, given, given_mask, num_frames)
    decoder, params = weights.unroll(decoder, params)
    chosen = options_lib.Options(**options)
    chosen.check(decoder)
    track = tracks.whole(
        decoder,
        given,
        params=params,
        sampler=sampler,
        lengths=num_frames,
        **chosen.prepare(decoder, params),
    )
    decoder.check_steps(track.count(None))
    self._cell_codes = np.asarray(track.join(given))
    totals = self._tabulate(track)
    mask = np.asarray(track.join(given_mask), bool)
    rows = np.arange(len(mask))[:, None]
    super().__init__(
        track,
        chosen,
        rng,
        self._cell_codes[rows, self._order],
        mask[rows, self._order] & self._there,
        totals,
        np.asarray(track.end()),
        _latency(self._frame),
    )

  def _tabulate(self, track):
    """What stands where, on the host; [B] frames of each row."""
    frame, self._slot, exists, _ = map(np.asarray, track.table)
    if not exists.any():
      raise ValueError('no row has a frame in any segment')
    self._order, totals = _order(frame, exists, self._cell_codes.shape[1])
    self._number = np.argsort(self._order, axis=1)
    rows = np.arange(len(frame))[:, None, None]
    number = self._number[rows, np.where(exists, frame, 0)]
    self._frame = np.where(exists, number, -1)
    self._there = _there(self._frame, self._slot, self._cell_codes.shape)
    return totals

  @property
  def segments(self) -> Int[np.ndarray, 'B *L']:
    """The numbers of the segments of the frames that were given out last.

    -1 in rows that gave none, and everywhere in a stage, whose segments are
    slots of the same frames. As `number`, [B, L] after `flush`.
    """
    number = self.number.reshape(len(self.number), -1)
    segment = np.where(self._has(number).any(axis=2), self._segment(number), -1)
    return segment.reshape(self.number.shape)

  def _segment(self, number):
    """Of frames [B, n]; unspecified where there are none."""
    if isinstance(self._track, tracks.Stages):
      return np.full(number.shape, -1)
    offsets = self._track.offsets(self._track.sizes)
    cell = np.take_along_axis(self._order, self._clipped(number), axis=1)
    return np.searchsorted(offsets, cell, side='right') - 1

  def _clipped(self, number):
    return np.clip(number, 0, self._order.shape[1] - 1)

  def _has(self, number):
    rows = np.arange(len(number))[:, None]
    inside = (number >= 0) & (number < self._order.shape[1])
    return self._there[rows, self._clipped(number)] & inside[..., None]

  def _observed(self):
    roles = [s.role for s in self._track.decoder.sequence.segments]
    segment = self._segment(self.entered[:, None])
    own = (segment >= 0) & (np.array(roles)[segment] == 'observe')
    return super()._observed() | own

  def _cells(self, step):
    count = self._frame.shape[1]
    rows, index = np.arange(len(step)), np.minimum(step, count - 1)
    inside = (step < count)[:, None]
    frame = np.where(inside, self._frame[rows, index], -1)
    return frame, self._slot[rows, index]

  def _later(self, frame, entered):
    return frame >= entered

  def _count(self, frames):
    held = (self._frame >= 0) & (self._frame < frames[:, None, None])
    number = np.arange(1, held.shape[1] + 1)
    return np.max(number * held.any(axis=2), axis=1, initial=0)

  def _prompt(self):
    leading = self._leading[:, None]
    later = (self._frame >= leading[..., None]).any(axis=2)
    count = np.where(later.any(axis=1), later.argmax(axis=1), self._last)
    shown = (self._number < leading)[..., None]
    return self._cell_codes, shown, int(count.max())

  def _check_flush(self):
    sequence, least = self._track.decoder.sequence, self._totals
    last, staged = sequence.segments[-1], isinstance(self._track, tracks.Stages)
    if last.pattern.streamable and not (staged or sequence.ends_in_turns):
      least = least - np.asarray(self._track.lengths[last.label])
    if (self.entered < least).any():
      raise ValueError(
          f'rows have taken in {self.entered} frames, and can not end before'
          f' {least}: step on until then'
      )


def _order(frame, exists, size):
  """Frames in the order in which rows' steps come to them.

  Args:
    frame: [B, N, G] among the `size` frames of all segments.
    exists: [B, N, G].
    size: F.

  Returns:
    [B, F] the frames in their order, those that do not exist at the end; [B]
    how many exist.
  """
  rows, count, _ = frame.shape
  first = np.full((rows, size), count)
  row, step, _ = np.nonzero(exists)
  np.minimum.at(first, (row, frame[exists]), step)
  return np.argsort(first, axis=1, kind='stable'), (first < count).sum(axis=1)


def _there(number, slot, shape):
  """[B, F, K] which slots the frames of each row have, by their numbers."""
  there = np.zeros(shape, bool)
  row, *_ = np.nonzero(number >= 0)
  there[row, number[number >= 0], slot[number >= 0]] = True
  return there


def _latency(number):
  """How many frames more than itself the steps up to a frame's last one need."""
  needed = np.maximum.accumulate(number.max(axis=2), axis=1)
  late = np.where(number >= 0, needed[..., None] - number, 0)
  return int(late.max(initial=0))
