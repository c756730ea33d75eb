"""Language models of sequences of segments, with their parameters."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import steps as steps_lib
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.training import costs


def generation_flops(
    decoder: steps_lib.Steps,
    params: Any,
    rows: tuple[Any, Any, Any],
    conditions: Any = None,
    guided: bool = False,
    **options,
) -> float:
  """FLOPs of generating one row: what is not observed, step by step.

  Args:
    decoder: of frames or of segments.
    params: its parameters, or their shapes.
    rows: what `generation.generate` takes as given, its mask, and lengths.
    conditions: arrays of the decoder's conditions, of one row.
    guided: whether classifier-free guidance doubles the rows.
    **options: `cache_length` and `sink_tokens` of `generation.generate`.
  """

  def run(params, given, mask, num_frames, conditions):
    contexts = {}
    if decoder.conditions:
      contexts['context'] = scoring.context(decoder, params, conditions, 1)
    if guided:
      contexts['null_context'] = scoring.context(decoder, params, None, 1)
    return generation.generate(
        decoder,
        params,
        given,
        mask,
        num_frames,
        jax.random.key(0),
        generation.Sampler(),
        **contexts,
        **options,
    )

  given, _, num_frames = rows
  codes, _ = decoder.segments(given, num_frames)
  layout = decoder.sequence.layout({k: c.shape[1] for k, c in codes.items()})
  trips = len(layout.segment) - max(layout.leading, decoder.start.given)
  return costs.flops(run, params, *rows, conditions, while_trips=max(trips, 0))


@dataclasses.dataclass(frozen=True)
class SegmentLM:
  """A model of segments with its parameters: what `audiolm_jax.load` returns.

  Attributes:
    decoder: the model.
    params: its parameters.
    frame_rate: frames a second of the segment that stands for audio.
    tokenizer: of that segment, where the two came in one directory.
  """

  decoder: segmented.Segmented
  params: Any
  frame_rate: float
  tokenizer: audio_tokenizer.AudioTokenizer | None = None

  def score(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
  ) -> scores_lib.Scores:
    """Log-probabilities of segments; compiles once for each shape.

    Raises:
      ValueError: if codes or lengths are out of range.
    """
    self.decoder.check(codes, num_frames)
    return scoring.score(self.decoder, self.params, (codes, num_frames))

  def bits_per_frame(
      self,
      codes: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
  ) -> dict[str, Float[np.ndarray, 'B']]:
    """Bits a frame of each row's predicted segments (NaN for empty ones)."""
    streams = self.score(codes, num_frames).streams
    return {
        label: rows_lib.bits(stream.log_prob, np.asarray(num_frames[label]))
        for label, stream in streams.items()
    }

  def generate(
      self,
      given: dict[str, Int[Array, 'B F K']],
      num_frames: dict[str, Int[Array, 'B']],
      shown: dict[str, Int[Array, 'B']],
      *,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      **options,
  ) -> dict[str, Int[np.ndarray, 'B F K']]:
    """Fills the segments from their beginnings.

    Args:
      given: codes of each segment, padded to the length of the result.
      num_frames: frames of each row's segments, what is given included.
      shown: how many of them are given; what follows counts for nothing.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      **options: `context`, `null_context`, `guidance`, `stop`, `cache_length`
        and `sink_tokens` of `generation.generate`.

    Raises:
      ValueError: if not 0 <= shown <= lengths <= F, for codes out of range that
        are shown, or options that do not fit.
    """
    masks = _masks(given, num_frames, shown)
    generated = generation.generate(
        self.decoder,
        self.params,
        given,
        masks,
        num_frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
        **options,
    )
    return {label: np.asarray(c) for label, c in generated.codes.items()}

  def session(
      self,
      prompts: dict[str, Int[Array, 'B P K']],
      num_frames: dict[str, Int[Array, 'B']],
      *,
      shown: dict[str, Int[Array, 'B']] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      **options,
  ) -> generation.SegmentSession:
    """Rows that go on frame by frame, and can be fed.

    With nothing given, the session's frames are the codes of `generate`; to
    iterate over it gives them one by one, as soon as each is known.

    Args:
      prompts: codes of each segment that are known beforehand, from its first
        frame on; segments of which nothing is known may be absent. What comes
        before all that is not known is taken in at once.
      num_frames: frames of each row's segments, prompts included; of the last
        segment at most, where there is a `stop`.
      shown: frames of each row's prompts, P for all if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      **options: `context`, `null_context`, `guidance`, `stop`, `cache_length`
        and `sink_tokens` of `generation.generate`.

    Raises:
      ValueError: if not 0 <= shown <= lengths, for labels that are no segment's,
        for codes out of range, or options that do not fit.
    """
    num_frames = {k: np.asarray(n, np.int32) for k, n in num_frames.items()}
    given, shown = self._padded(prompts, num_frames, shown)
    return generation.SegmentSession(
        self.decoder,
        self.params,
        given,
        _masks(given, num_frames, shown),
        num_frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
        **options,
    )

  def _padded(self, prompts, num_frames, shown):
    """Prompts of all segments, as long as the longest row, and their lengths."""
    segments = self.decoder.sequence.segments
    labels = {segment.label for segment in segments}
    given = dict(prompts)
    if not set(given) <= labels or set(num_frames) != labels:
      raise ValueError(
          f'prompts of {sorted(given)} and num_frames of {sorted(num_frames)}:'
          f' expected segments {sorted(labels)}'
      )
    known = {}
    for segment in segments:
      label, rows = segment.label, len(num_frames[segment.label])
      none = np.zeros((rows, 0, len(segment.slots)), np.int32)
      codes = np.asarray(given.get(label, none))
      lengths = None if shown is None else shown.get(label)
      known[label] = rows_lib.lengths(lengths, codes.shape, label)
      missing = int(np.max(num_frames[label], initial=0)) - codes.shape[1]
      padding = (0, 0), (0, max(missing, 0)), (0, 0)
      given[label] = np.pad(codes, padding)
    return given, known

  def generation_flops(
      self, seconds: float, num_frames: Mapping[str, int]
  ) -> float:
    """FLOPs of `generate` for one row: what is computed, nothing is run.

    Segments that are observed are given. Those that come first are taken in at
    once, all others step by step. A step attends over the whole cache, filled
    or not. Parameters may be shapes.

    Args:
      seconds: of the segment that stands for audio, to whole frames.
      num_frames: frames of every other segment, by label.

    Raises:
      ValueError: for a duration below 0 or without an end, or if `num_frames`
        does not leave one segment.
    """
    segments = self.decoder.sequence.segments
    labels = [segment.label for segment in segments]
    audio = [label for label in labels if label not in num_frames]
    if len(audio) != 1 or not set(num_frames) <= set(labels):
      raise ValueError(
          f'num_frames of {sorted(num_frames)}: expected all segments of'
          f' {labels} but the one that stands for audio'
      )
    seconds_frames = rows_lib.duration(seconds, self.frame_rate)
    frames = {**num_frames, audio[0]: seconds_frames}
    given = {
        s.label: np.zeros((1, frames[s.label], len(s.slots)), np.int32)
        for s in segments
    }
    masks = {
        s.label: np.full(given[s.label].shape, s.role == 'observe')
        for s in segments
    }
    lengths = {label: np.array([n]) for label, n in frames.items()}
    rows = given, masks, lengths
    return generation_flops(self.decoder, self.params, rows)


def _masks(given, num_frames, shown):
  """Where the first `shown` frames are, of segments by their labels."""
  masks = {}
  for label, codes in given.items():
    first, last = np.asarray(shown[label]), np.asarray(num_frames[label])
    wrong = (first < 0) | (first > last) | (last > codes.shape[1])
    if wrong.any():
      raise ValueError(
          f'{label}: {first} of {last} frames given, {codes.shape[1]} in all'
      )
    mask = np.arange(codes.shape[1])[:, None] < first[:, None, None]
    masks[label] = np.broadcast_to(mask, codes.shape)
  return masks
