"""Language models of token frames, with their parameters: for people."""

import dataclasses
import functools
import math

import jax
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.models import frames_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.models import segment_lm
from audiolm_jax.training import limits


@dataclasses.dataclass(frozen=True)
class TokenLM(frames_lm.FramesLM):
  """An autoregressive model of frames: what `audiolm_jax.load` returns."""

  decoder: decoder_lib.Decoder

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: frames_lm.Values | None = None,
  ) -> scores_lib.Scores:
    """Log-probabilities of the stream 'frames'; compiles for each shape.

    Args:
      codes: of B rows.
      num_frames: frames of each, F for all if not given.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.

    Raises:
      ValueError: if codes or lengths are out of range, or conditions do not
        fit.
    """
    codes, num_frames = self._check(codes, num_frames)
    prepared = self.decoder.prepare(conditions, len(codes))
    inputs = codes, num_frames, None, prepared
    return scoring.score(self.decoder, self.params, inputs)

  def bits_per_frame(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: frames_lm.Values | None = None,
  ) -> Float[np.ndarray, 'B']:
    """Bits a frame of each row (NaN for an empty one); see `score`."""
    scores = self.score(codes, num_frames, conditions)['frames']
    scored = np.asarray(scores.mask)[:, :, self.decoder.predicted[0]]
    return rows_lib.bits(scores.log_prob, scored.sum(axis=1))

  @functools.cached_property
  def _unrolled(self):
    """The decoder and its parameters as steps want them, made once."""
    return generation.unroll(self.decoder, self.params)

  def check_fits(
      self,
      frames: int | None,
      cache_length: int | None = None,
      *,
      sink_tokens: int = 0,
      guided: bool = False,
  ) -> None:
    """Refuses a row that could never be generated, before anything is.

    Args:
      frames: of the row, prompt included; None for no end.
      cache_length: steps that attention keeps in sight; None for all.
      sink_tokens: first steps that stay in sight beside them.
      guided: whether classifier-free guidance doubles the row.

    Raises:
      ValueError: for a pattern that must know the end, more steps than there are
        learned positions, or a cache beyond all memory.
    """
    decoder, steps = self.decoder, None
    if frames is None and not decoder.pattern.streamable:
      raise ValueError(f'{decoder.pattern} must know the end beforehand.')
    if frames is not None:
      steps = decoder.pattern.steps(frames, len(decoder.vocabularies))
    decoder.check_steps(steps)
    kept = cache_length or steps
    if kept is None:
      raise ValueError('a row without an end needs a cache_length')
    state = jax.eval_shape(
        lambda: decoder.initial_state(1 + guided, kept, sink_tokens)
    )
    size = sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(state)
    )
    what = f'Attention to {kept} steps (fewer with a shorter cache)'
    limits.check(size, limits.device_memory(), what)

  def generate(
      self,
      prompt: Int[Array, 'B P K'],
      frames: int,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      temperature: float = 1.0,
      top_k: int | None = None,
      top_p: float = 1.0,
      min_p: float = 0.0,
      conditions: frames_lm.Values | None = None,
      **options,
  ) -> Int[np.ndarray, 'B F K']:
    """Continues prompts.

    Args:
      prompt: the frames to continue; P = 0 for none.
      frames: F, length of the result, prompt included; at least P.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the four that follow.
      temperature: see `generation.Sampler`.
      top_k: draw from so many of the likeliest codes only; None for all.
      top_p: draw from the likeliest codes whose probabilities add up to it.
      min_p: draw from codes at least so likely, relative to the likeliest.
      conditions: see `score`.
      **options: `guidance` (of a model with conditions, or with the next two),
        `context`, `null_context`, `stop`, `cache_length` and `sink_tokens` of
        `generation.generate`.

    Returns:
      Each row's prompt and its continuation, F frames in all; 0 after a `stop`.

    Raises:
      ValueError: if frames < P, codes or lengths are out of range, or conditions
        do not fit.
    """
    prompt, num_frames = self._check(prompt, num_frames)
    rows, given_frames, _ = prompt.shape
    if frames < given_frames:
      raise ValueError(f'frames = {frames} < the prompt has: {given_frames}')
    if sampler is None:
      sampler = generation.Sampler(temperature, top_k, top_p, min_p)
    given, given_mask, most = generation.continue_prompts(
        prompt, num_frames, frames
    )
    generated = generation.generate(
        *self._unrolled,
        given,
        given_mask,
        np.full(rows, frames, np.int32),
        jax.random.key(seed),
        sampler,
        prompt_frames=most,
        **self._contexts(conditions, rows, options),
    )
    return np.asarray(generated.codes)

  def infill(
      self,
      codes: Int[Array, 'B F K'],
      known: Bool[Array, 'B F K'],
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      conditions: frames_lm.Values | None = None,
      **options,
  ) -> Int[np.ndarray, 'B F K']:
    """Draws what is not known, given what comes before it alone.

    What is known comes back as it is. What comes after a gap has no say in what
    fills it, as it has in a masked model (`MaskedLM.infill`).

    Args:
      codes: anything where not known.
      known: any set of codes.
      num_frames: frames of each row, F for all if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      conditions: see `score`.
      **options: see `generate`.

    Returns:
      Codes, 0 past a row's length.

    Raises:
      ValueError: if known codes or lengths are out of range, shapes differ, or
        conditions do not fit.
    """
    codes, known, num_frames = self._check_known(codes, known, num_frames)
    generated = generation.generate(
        *self._unrolled,
        codes,
        known,
        num_frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
        **self._contexts(conditions, len(codes), options),
    )
    return np.asarray(generated.codes)

  def session(
      self,
      prompts: Int[Array, 'B P K'],
      frames: int | None = None,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      conditions: frames_lm.Values | None = None,
      **options,
  ) -> generation.Session:
    """Rows that go on step by step, and can be fed.

    With nothing given, the session's frames are the codes of `generate`; to
    iterate over it gives them one by one, as soon as each is known.

    Args:
      prompts: how the rows begin; P = 0 for no prompt.
      frames: length of all rows, prompt included; None for no end, which needs
        a `cache_length`.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.
      **options: `guidance`, `context`, `null_context`, `stop`, `cache_length`
        and `sink_tokens` of `generation.Session`.

    Raises:
      ValueError: if codes or lengths are out of range, conditions do not fit,
        or the pattern cannot go on without an end.
    """
    prompts, num_frames = self._check(prompts, num_frames)
    return self._begin(
        prompts,
        num_frames,
        frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
        **self._contexts(conditions, len(prompts), options),
    )

  def _begin(self, *rows, **options):
    """A session of prompts, their lengths, frames, key and sampler."""
    return generation.Session(*self._unrolled, *rows, **options)

  def generation_flops(
      self,
      seconds: float,
      *,
      guided: bool = False,
      cache_length: int | None = None,
      sink_tokens: int = 0,
  ) -> float:
    """FLOPs of `generate` for one row without a prompt: what is computed.

    It counts every step of the pattern, every code that the head draws, both
    passes of guidance, and what conditions become, once. Segments that a stage
    observes and that come first are taken in at once. A step attends over the
    whole cache, filled or not. Nothing is run: parameters may be shapes.

    Args:
      seconds: of audio, to whole frames.
      guided: whether classifier-free guidance doubles the rows.
      cache_length: steps that attention without a window keeps in sight; None
        for all.
      sink_tokens: first steps that stay in sight beside them.

    Raises:
      ValueError: for a duration below 0 or without an end, frames that are no
        time, guidance of a model without conditions, or options of the cache
        that are out of range.
    """
    decoder = self.decoder
    if guided and not decoder.conditions:
      raise ValueError('guided = True, but the model has no conditions')
    frames = rows_lib.duration(seconds, self.frame_rate)

    shape = 1, frames, len(decoder.vocabularies)
    return segment_lm.generation_flops(
        decoder,
        self.params,
        (np.zeros(shape, np.int32), np.zeros(shape, bool), np.array([frames])),
        self.decoder.prepare(None, 1),
        guided,
        cache_length=cache_length,
        sink_tokens=sink_tokens,
    )


class StageLM(TokenLM):
  """A stage of frames: it goes on from another stage's codes, frame for frame."""

  def generate(
      self,
      codes: Int[Array, 'B F K'],
      *,
      num_frames: Int[Array, 'B'] | None = None,
      shown: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      conditions: frames_lm.Values | None = None,
  ) -> Int[np.ndarray, 'B F K']:
    """Fills the slots that the stage predicts.

    Args:
      codes: of all frames; what is to be predicted counts for nothing.
      num_frames: frames of each row, F for all if not given.
      shown: of how many leading frames (a prompt) all slots are given; 0 for
        all rows if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      conditions: see `score`.

    Raises:
      ValueError: if codes, lengths or shown are out of range.
    """
    codes, num_frames = self._check(codes, num_frames)
    if shown is None:
      shown = np.zeros_like(num_frames)
    shown = np.asarray(shown)
    if (shown < 0).any() or (shown > num_frames).any():
      raise ValueError(f'{shown} frames are given of {num_frames}')
    mask = np.arange(codes.shape[1])[:, None] < shown[:, None, None]
    mask = np.broadcast_to(mask, codes.shape).copy()
    predicted = list(self.decoder.predicted)
    observed = np.setdiff1d(np.arange(codes.shape[2]), predicted)
    mask[..., observed] = True
    return self.infill(
        codes,
        mask,
        num_frames=num_frames,
        seed=seed,
        sampler=sampler,
        conditions=conditions,
    )

  def _begin(self, prompts, num_frames, frames, rng, sampler, **options):
    if frames is None or frames < prompts.shape[1]:
      raise ValueError(
          f'frames = {frames}: a stage must know where rows end, at'
          f' {prompts.shape[1]} frames (those of the prompts) or later'
      )
    given, mask, _ = generation.continue_prompts(prompts, num_frames, frames)
    ends = np.full(len(prompts), frames, np.int32)
    return generation.SegmentSession(
        *self._unrolled, given, mask, ends, rng, sampler, **options
    )
