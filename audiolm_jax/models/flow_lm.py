"""Models that denoise latents, with their parameters: for people."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import flow
from audiolm_jax.decoders import of_latents
from audiolm_jax.generation import checks
from audiolm_jax.generation import flow_session
from audiolm_jax.models import flow_rows
from audiolm_jax.models import latents_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.ops import sharding
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import validation
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.training import costs

# Of conditions: by name, one for each row; None for none.
Values = Mapping[str, Sequence[Any]]
Solver = flow_session.Solver
Guidance = guidance_lib.Guidance | guidance_lib.Mixture


@dataclasses.dataclass(frozen=True)
class FlowLM(latents_lm.LatentsLM):
  """A model that denoises whole rows: what `audiolm_jax.load` returns."""

  decoder: flow.Flow

  def generate(
      self,
      frames: int,
      num_frames: Int[Array, 'B'],
      *,
      seed: int = 0,
      solver: Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: Guidance | None = None,
      conditions: Values | None = None,
      negative: Values | None = None,
      given: Float[Array, 'B F D'] | None = None,
      given_mask: Bool[Array, 'B F'] | None = None,
      init: Float[Array, 'B F D'] | None = None,
      strength: float | None = None,
  ) -> Float[np.ndarray, 'B F D']:
    """Latents as the tokenizer decodes them; compiles for each shape.

    What is drawn depends on the seed, the row's number and the frame alone.

    Args:
      frames: F, of the result.
      num_frames: of each row.
      seed: the same seed gives the same latents.
      solver: how noise becomes data; None for Euler's, or for jumps of a map.
      grid: the times of its steps; None for 32 even ones, or 4 jumps.
      guidance: how conditions are made to count for more; None for not at all.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.
      negative: the same of what guidance leads away from; None for none.
      given: latents as the tokenizer gives them; anything where not given. They
        are in the result to the bit.
      given_mask: which of them are given, with `given`.
      init: latents to start from, with `strength` (SDEdit, 2108.01073).
      strength: the time at which they are noisy, by which all of the grid's are
        multiplied: near 0 little changes, 1 leaves nothing of them.

    Returns:
      The latents, 0 past a row's length.

    Raises:
      ValueError: for lengths, latents or conditions that do not fit, what does
        nothing, jumps of a model without or with guidance, or a solver and times
        that do not fit (`Gaussian.check`).
    """
    job = self._prepare(
        frames,
        num_frames,
        seed=seed,
        solver=solver,
        grid=grid,
        guidance=guidance,
        conditions=conditions,
        negative=negative,
        given=given,
        given_mask=given_mask,
        init=init,
        strength=strength,
    )
    return self._draw(job, job.rows, frames)

  def generate_long(
      self,
      frames: int,
      num_frames: Int[Array, 'B'],
      *,
      window: int,
      overlap: int,
      **options: Any,
  ) -> Float[np.ndarray, 'B F D']:
    """`generate` of rows longer than those of training, window by window.

    A window is given the last frames of the one before, as they have become. The
    noise of a frame goes by its number in the row, whichever windows it is in.
    Conditions are the same in all windows.

    Args:
      frames: F, of the result.
      num_frames: of each row.
      window: frames that are drawn at once; as many as F or more: `generate`.
      overlap: frames that a window shares with the one before.
      **options: as `generate` has them.

    Raises:
      ValueError: see `generate`, `windows`; for several windows of a model that
        was made to take no given latents.
    """
    starts = windows(frames, window, overlap)
    if len(starts) == 1:
      return self.generate(frames, num_frames, **options)
    if self.decoder.gaps is None:
      raise ValueError('windows, but the model was made to take none given')
    if conditioners.aligned(self.decoder.conditions):
      raise ValueError(
          'windows, but conditions of frames are of rows as long as in training'
      )
    job = self._prepare(frames, num_frames, **options)
    missing = starts[-1] + window - frames

    def padded(x):
      return np.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)))

    known, hidden, init = job.rows.given, job.rows.hidden, job.rows.init
    if known is None:
      known = np.zeros(
          (len(num_frames), frames, self.decoder.dimension), np.float32
      )
      hidden = np.ones(known.shape[:2], bool)
    known, hidden = padded(known), padded(hidden)
    init = None if init is None else padded(init)
    for start in starts:
      part = slice(start, start + window)
      own = np.clip(job.rows.num_frames - start, 0, window)
      rows = flow_rows.Rows(own, known[:, part], hidden[:, part], None, start)
      if init is not None:
        rows = rows._replace(init=init[:, part])
      known[:, part] = self._draw(job, rows, window)
      hidden[:, part] = False
    return known[:, :frames]

  def session(
      self,
      rows: int,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      cache_length: int | None = None,
      seed: int = 0,
      solver: solvers.Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: guidance_lib.Plain | None = None,
      conditions: Values | None = None,
      negative: Values | None = None,
  ) -> flow_session.FlowSession:
    """Rows of a block-causal model that go on block by block, and can be fed.

    Args:
      rows: B.
      num_frames: of each row; None for no end.
      cache_length: frames that attention keeps in sight; None for all of rows
        that have an end, which then are those of `generate`.
      seed: see `generate`, as all that follow.
      solver: which steps; jumps are of whole rows.
      grid: their times.
      guidance: plain, which measures nothing of the whole row.
      conditions: what rows are told.
      negative: what guidance leads away from.

    Raises:
      ValueError: for a model that sees all frames at once, rows without an end
        and a cache_length, or see `generate`.
    """
    if num_frames is not None:
      most = max(int(np.max(num_frames, initial=0)), 1)
      num_frames = rows_lib.lengths(num_frames, (rows, most), 'latents of')
      # Whole blocks.
      block = self.decoder.backbone.block_size
      cache_length = cache_length or -(-most // block) * block
    if cache_length is None:
      raise ValueError('rows without an end need a cache_length')
    settings = self.settings(solver, grid, guidance, None)
    if not isinstance(settings.solver, solvers.Solver):
      raise ValueError(f'{settings.solver}: give a solver to go block by block')
    contexts, null = self._contexts(conditions, rows, guidance, negative)
    return flow_session.FlowSession(
        self.decoder,
        self.params,
        num_frames,
        rows,
        jax.random.key(seed),
        settings,
        cache_length,
        contexts if guidance is None else (*contexts, null),
    )

  def generation_flops(
      self,
      seconds: float,
      *,
      solver: Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: Guidance | None = None,
      strength: float | None = None,
      window: int | None = None,
      overlap: int = 0,
  ) -> float:
    """FLOPs of `generate` for one row: what is computed.

    That is every evaluation of the network, all of guidance, and what
    conditions become, once. Nothing is run: parameters may be shapes.

    Args:
      seconds: of audio, to whole frames.
      solver: see `generate`.
      grid: see `generate`.
      guidance: see `generate`.
      strength: see `generate`; None for no `init`.
      window: of `generate_long`; None for `generate`.
      overlap: of `generate_long`.

    Raises:
      ValueError: for a duration below 0 or without an end, frames that are no
        time, guidance of a model without conditions, jumps of one without or
        with guidance, times or windows as `generate` and `generate_long` have it.
    """
    frames, count = rows_lib.duration(seconds, self.frame_rate), 1
    if window is not None:
      count = len(windows(frames, window, overlap))
      frames = min(frames, window)
    settings = self.settings(solver, grid, guidance, strength)

    def contexts(params):
      model = dataclasses.replace(self, params=params)
      return model._contexts(None, 1, guidance, None)

    def run(params):
      init = None
      if strength is not None:
        init = jnp.zeros((1, frames, self.decoder.dimension))
      rows = flow_rows.Rows(jnp.array([frames]), None, None, init)
      return flow_rows.sample(
          *(self.decoder, settings, params, jax.random.key(0), frames),
          *(rows, *contexts(params)),
      )

    once = costs.flops(contexts, self.params)
    return once + count * (costs.flops(run, self.params) - once)

  def _prepare(
      self,
      frames,
      num_frames,
      *,
      seed=0,
      solver=None,
      grid=None,
      guidance=None,
      conditions=None,
      negative=None,
      strength=None,
      **latents,
  ):
    """What `generate` is asked for, checked."""
    num_frames = rows_lib.lengths(
        num_frames, (len(num_frames), frames), 'latents of'
    )
    return _Job(
        self.settings(solver, grid, guidance, strength),
        jax.random.key(seed),
        self._rows(num_frames, frames, strength=strength, **latents),
        self._contexts(conditions, len(num_frames), guidance, negative),
    )

  def _draw(self, job, rows, frames):
    """The latents of rows, as the tokenizer decodes them."""
    seen = rows._replace(
        **{
            name: self.decoder.normalised(value)
            for name in ('given', 'init')
            if (value := getattr(rows, name)) is not None
        }
    )
    found = flow_rows.sample(
        *(self.decoder, job.settings, self.params, job.key, frames),
        *(seen, *job.contexts),
    )
    found = np.array(self.decoder.restored(np.asarray(found)))
    if rows.given is not None:
      found = np.where(rows.hidden[..., None], found, rows.given)
    found[np.arange(frames) >= rows.num_frames[:, None]] = 0
    return found

  def settings(
      self,
      solver: Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: Guidance | None = None,
      strength: float | None = None,
  ) -> flow_session.Settings:
    """What `generate` does where something is not given, by what the model is.

    Args:
      solver: see `generate`.
      grid: see `generate`.
      guidance: see `generate`.
      strength: see `generate`.

    Raises:
      ValueError: for jumps of a model without, or with guidance.
    """
    has_jumps = self.decoder.jump is not None
    if solver is None:
      solver = flow_maps.Jumps() if has_jumps else solvers.Euler()
    if not isinstance(solver, flow_maps.Jumps):
      return flow_session.Settings(
          solver, grid or times_lib.Grid(), guidance, strength
      )
    if not has_jumps:
      raise ValueError(f'{solver}, but the model takes one time')
    if guidance is not None:
      raise ValueError(
          f'{guidance} of jumps: a map has the guidance that it was distilled'
          ' with'
      )
    return flow_session.Settings(
        solver, grid or times_lib.Grid(4), None, strength
    )

  def _contexts(self, conditions, rows, guidance, negative):
    """What conditions become, and for guidance what those it leads away from."""
    prepared = self.decoder.prepare(conditions, rows)
    null = self.decoder.prepare(negative, rows)
    if guidance is None and negative:
      raise ValueError('negative conditions do nothing without guidance')
    if not self.decoder.conditions:
      if guidance is not None:
        raise ValueError(f'{guidance}, but the model has no conditions')
      return (None,), None

    def context(prepared):
      return scoring.context(self.decoder, self.params, prepared, rows)

    if guidance is None:
      return (context(prepared),), None
    parts = [prepared]
    if isinstance(guidance, guidance_lib.Mixture):
      unknown = {n for _, names in guidance.parts for n in names} - {*prepared}
      if unknown:
        raise ValueError(
            f'{guidance}: the model has no {sorted(unknown)}, but'
            f' {sorted(prepared)}'
        )
      parts = [{n: prepared[n] for n in names} for _, names in guidance.parts]
    return tuple(map(context, parts)), context(null)

  def _rows(
      self,
      num_frames,
      frames,
      *,
      given=None,
      given_mask=None,
      init=None,
      strength=None,
  ):
    """Checked rows of which latents are 0 where they are not known."""
    exists, size = (
        np.arange(frames) < num_frames[:, None],
        self.decoder.dimension,
    )
    if (given is None) != (given_mask is None):
      raise ValueError('given latents go with their given_mask')
    hidden = None
    if given is not None:
      if self.decoder.gaps is None:
        raise ValueError('given latents, but the model was made to take none')
      mask = np.asarray(given_mask)
      if mask.shape != exists.shape or mask.dtype != bool:
        raise ValueError(
            f'given_mask {mask.dtype} {mask.shape}: expected bool'
            f' {exists.shape}'
        )
      hidden = ~(mask & exists)
      given = checks.latents('given', given, ~hidden, size)
    if (init is None) != (strength is None):
      raise ValueError('init latents go with their strength')
    if init is not None:
      if not 0 < strength <= 1:
        raise ValueError(
            f'strength = {strength}: expected more than 0, at which nothing'
            ' would change, and at most 1'
        )
      init = checks.latents('init', init, exists, size)
    return flow_rows.Rows(num_frames, given, hidden, init)


class _Job(NamedTuple):
  """What all windows of rows share, and the rows."""

  settings: flow_session.Settings
  key: Any
  rows: flow_rows.Rows
  contexts: tuple[Any, Any]


def windows(frames: int, window: int, overlap: int) -> range:
  """First frames of the windows that make a row of so many frames.

  Args:
    frames: of the row.
    window: frames of each; what is left may be less.
    overlap: that each shares with the one before.

  Raises:
    ValueError: unless the overlap is at least 1 and less than the window.
  """
  if not 0 < overlap < window:
    raise ValueError(
        f'windows of {window} frames that share {overlap}: expected 1 or more,'
        ' and less than a window'
    )
  # Every window has something to draw.
  return range(0, max(frames - overlap, 1), window - overlap)


@functools.partial(jax.jit, static_argnames=('decoder', 'levels'))
def errors(
    decoder: flow.Flow,
    params: Any,
    inputs: of_latents.Inputs,
    rows: Int[Array, 'B'],
    levels: int,
) -> Float[Array, 'B L']:
  """Squared errors at each noise level, summed over frames, all hidden.

  Each process gets all rows.

  Args:
    decoder: the model.
    params: its parameters.
    inputs: as `decoder.read` gives them: normalised latents.
    rows: a number for each row that its noise goes by, wherever it stands.
    levels: L, at the times of `validation.levels`.
  """
  latents, num_frames, conditions = inputs
  context = None
  if decoder.conditions:
    context = scoring.context(decoder, params, conditions, len(latents))
  mask = streaming_base.length_mask(num_frames, latents.shape[1])
  keys = noise_lib.row_keys(jax.random.key(0), rows)
  denoise = flow_rows.denoiser(decoder, params, num_frames, None, None, context)
  return sharding.whole(
      validation.errors(denoise, latents, mask, keys, validation.levels(levels))
  )
