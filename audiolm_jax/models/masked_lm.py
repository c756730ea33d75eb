"""Masked models of token frames, with their parameters: for people."""

from collections.abc import Sequence
import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.generation import unmask
from audiolm_jax.models import frames_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.training import costs


class Bound(NamedTuple):
  """An estimate of a bound, row by row; NaN for rows without frames.

  Attributes:
    bits: for each frame, no less than -log2 p in the mean over draws.
    error: standard error of `bits`, of independent draws; NaN for one draw.
  """

  bits: Float[np.ndarray, 'B']
  error: Float[np.ndarray, 'B']


@dataclasses.dataclass(frozen=True)
class MaskedLM(frames_lm.FramesLM):
  """A masked model of frames: what `audiolm_jax.load` returns."""

  decoder: masked_lib.Masked

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: frames_lm.Values | None = None,
      draws: int = 8,
      seed: int = 0,
  ) -> scores_lib.Scores:
    """Estimates of bounds of the stream 'frames'; compiles for each shape.

    Args:
      codes: of B rows.
      num_frames: frames of each, F for all if not given.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.
      draws: passes through the model, over which the mean is taken.
      seed: of the draws.

    Raises:
      ValueError: if codes or lengths are out of range, or conditions do not
        fit.
    """
    inputs = self._inputs(codes, num_frames, conditions)
    return self._bound(inputs, draws, seed, None)[0]

  def bits_per_frame(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: frames_lm.Values | None = None,
      draws: int = 8,
      seed: int = 0,
      steps: int | None = None,
      schedule: Literal['linear', 'cosine'] = 'linear',
  ) -> Bound:
    """A bound in bits a frame of each row.

    Args:
      codes: as `score` takes them, and the next four.
      num_frames: of each row.
      conditions: by name.
      draws: passes through the model.
      seed: of the draws.
      steps: if given, the bound of codes that are sampled in so many steps a
        stage, in random order: what speed costs.
      schedule: of those steps; see `processes.discrete.Absorbing`.

    Raises:
      ValueError: see `score`; for fewer steps than 1, or a schedule of none.
    """
    if steps is None and schedule != 'linear':
      raise ValueError(f'schedule = {schedule!r} does nothing without steps')
    inputs = self._inputs(codes, num_frames, conditions)
    keep = None
    if steps is not None:
      if steps < 1:
        raise ValueError(f'steps = {steps}: expected at least 1')
      keep = shares(self.decoder, steps, schedule)
    scores, variance = self._bound(inputs, draws, seed, keep)
    frames = inputs[1]
    bits = rows_lib.bits(scores['frames'].log_prob, frames)
    deviation = scores_lib.bits(np.sqrt(np.asarray(variance)))
    none = np.full_like(bits, np.nan)
    error = np.divide(deviation, frames, out=none, where=frames > 0)
    return Bound(bits, error)

  def _inputs(self, codes, num_frames, conditions):
    codes, num_frames = self._check(codes, num_frames)
    return codes, num_frames, None, self.decoder.prepare(conditions, len(codes))

  def _bound(self, inputs, draws, seed, keep):
    if draws < 1:
      raise ValueError(f'draws = {draws}: expected at least 1')
    rows = jnp.arange(len(inputs[0]))
    keys = noise_lib.row_keys(jax.random.key(seed), rows)
    return scoring.bound(self.decoder, self.params, inputs, keys, draws, keep)

  def generate(
      self,
      prompt: Int[Array, 'B P K'],
      frames: int,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      plans: Sequence[unmask.Plan] = (unmask.Plan(),),
      conditions: frames_lm.Values | None = None,
      **options,
  ) -> Int[np.ndarray, 'B F K']:
    """Continues prompts: `infill` of all that follows them.

    Args:
      prompt: the frames to continue; P = 0 for none.
      frames: F, length of the result, prompt included; at least P.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same codes.
      plans: how each stage is drawn; see `generation.unmask.generate`.
      conditions: see `score`.
      **options: see `infill`.

    Raises:
      ValueError: if frames < P, codes or lengths are out of range, or conditions
        do not fit.
    """
    prompt, num_frames = self._check(prompt, num_frames)
    if frames < prompt.shape[1]:
      raise ValueError(f'frames = {frames} < the prompt has: {prompt.shape[1]}')
    given, mask, _ = generation.continue_prompts(prompt, num_frames, frames)
    return self.infill(
        given,
        mask,
        seed=seed,
        plans=plans,
        conditions=conditions,
        **options,
    )

  def infill(
      self,
      codes: Int[Array, 'B F K'],
      known: Bool[Array, 'B F K'],
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      plans: Sequence[unmask.Plan] = (unmask.Plan(),),
      conditions: frames_lm.Values | None = None,
      **options,
  ) -> Int[np.ndarray, 'B F K']:
    """Draws what is not known; what is known comes back as it is.

    Args:
      codes: anything where not known.
      known: any set of codes.
      num_frames: frames of each row, F for all if not given.
      seed: the same seed gives the same codes.
      plans: how each stage is drawn; see `generation.unmask.generate`.
      conditions: see `score`.
      **options: `guidance` (of a model with conditions, or with the next two),
        `context` and `null_context` of `generation.unmask.generate`.

    Returns:
      Codes, 0 past a row's length.

    Raises:
      ValueError: if known codes or lengths are out of range, shapes differ, or
        conditions do not fit.
    """
    codes, known, num_frames = self._check_known(codes, known, num_frames)
    result = unmask.generate(
        self.decoder,
        self.params,
        codes,
        known,
        num_frames,
        jax.random.key(seed),
        plans,
        **self._contexts(conditions, len(codes), options),
    )
    return np.asarray(result)

  def generation_flops(
      self,
      seconds: float,
      *,
      plans: Sequence[unmask.Plan] = (unmask.Plan(),),
      guided: bool = False,
  ) -> float:
    """FLOPs of `generate` for one row without a prompt: what is computed.

    Every step passes all frames through the model, twice if guided.

    Args:
      seconds: of audio, to whole frames.
      plans: how each stage is drawn.
      guided: whether classifier-free guidance doubles the rows.

    Raises:
      ValueError: for a duration below 0 or without an end, frames that are no
        time, or guidance of a model without conditions.
    """
    decoder = self.decoder
    if guided and not decoder.conditions:
      raise ValueError('guided = True, but the model has no conditions')
    frames = rows_lib.duration(seconds, self.frame_rate)
    shape = 1, frames, len(decoder.vocabularies)

    def run(params, given, mask, num_frames, conditions):
      contexts = {}
      if decoder.conditions:
        contexts['context'] = scoring.context(decoder, params, conditions, 1)
      if guided:
        contexts['null_context'] = scoring.context(decoder, params, None, 1)
      return unmask.generate(
          decoder,
          params,
          given,
          mask,
          num_frames,
          jax.random.key(0),
          plans,
          **contexts,
      )

    return costs.flops(
        run,
        self.params,
        np.zeros(shape, np.int32),
        np.zeros(shape, bool),
        np.array([frames]),
        self.decoder.prepare(None, 1),
    )


def shares(
    decoder: masked_lib.Masked,
    steps: int,
    schedule: Literal['linear', 'cosine'] = 'linear',
) -> tuple[float, ...]:
  """The shares of places that are shown before each step and after the last.

  Args:
    decoder: what is sampled.
    steps: of a stage.
    schedule: see `processes.discrete.Absorbing`.
  """
  times = times_lib.Grid(steps).times
  return tuple(map(float, masked_lib.process(decoder, schedule).keep(times)))
