"""Models that denoise latents, with their parameters: for people."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import flow
from audiolm_jax.decoders import of_latents
from audiolm_jax.models import latents_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.ops import sharding
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import validation
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.training import costs

# Of conditions: by name, one for each row; None for none.
Values = Mapping[str, Sequence[Any]]
# What the keys of rows are folded with.
_START, _STEPS = 0, 1


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
      solver: solvers.Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: guidance_lib.Guidance | None = None,
      conditions: Values | None = None,
      given: Float[Array, 'B F D'] | None = None,
      given_mask: Bool[Array, 'B F'] | None = None,
  ) -> Float[np.ndarray, 'B F D']:
    """Latents as the tokenizer decodes them; compiles for each shape.

    What is drawn depends on the seed, the row's number and the frame alone.

    Args:
      frames: F, of the result.
      num_frames: of each row.
      seed: the same seed gives the same latents.
      solver: how noise becomes data; None for Euler's.
      grid: the times of its steps; None for 32 even ones.
      guidance: how conditions are made to count for more; None for not at all.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.
      given: latents as the tokenizer gives them; anything where not given. They
        are in the result to the bit.
      given_mask: which of them are given, with `given`.

    Returns:
      The latents, 0 past a row's length.

    Raises:
      ValueError: for lengths, given latents or conditions that do not fit,
        guidance of a model without conditions, or a solver and times at which
        what is predicted says too little (`Gaussian.check`).
    """
    num_frames = rows_lib.lengths(
        num_frames, (len(num_frames), frames), 'latents of'
    )
    given, hidden = self._given(given, given_mask, num_frames, frames)
    moments, known = self.decoder.moments, given
    if given is not None and moments is not None:
      known = moments.normalised(given)
    found = _sample(
        self.decoder,
        *(solver or solvers.Euler(), grid or times_lib.Grid(), guidance),
        self.params,
        jax.random.key(seed),
        *(num_frames, frames, known, hidden),
        *self._contexts(conditions, len(num_frames), guidance),
    )
    found = np.array(found)
    if moments is not None:
      found = moments.restored(found)
    if given is not None:
      found = np.where(hidden[..., None], found, given)
    found[np.arange(frames) >= num_frames[:, None]] = 0
    return found

  def generation_flops(
      self,
      seconds: float,
      *,
      solver: solvers.Solver | None = None,
      grid: times_lib.Grid | None = None,
      guidance: guidance_lib.Guidance | None = None,
  ) -> float:
    """FLOPs of `generate` for one row: what is computed.

    That is every evaluation of the network, both of guidance, and what
    conditions become, once. Nothing is run: parameters may be shapes.

    Args:
      seconds: of audio, to whole frames.
      solver: see `generate`.
      grid: see `generate`.
      guidance: see `generate`.

    Raises:
      ValueError: for a duration below 0 or without an end, frames that are no
        time, or guidance of a model without conditions.
    """
    frames = rows_lib.duration(seconds, self.frame_rate)

    def run(params):
      model = dataclasses.replace(self, params=params)
      contexts = model._contexts(None, 1, guidance)
      rows = jnp.array([frames]), frames, None, None, *contexts
      settings = solver or solvers.Euler(), grid or times_lib.Grid(), guidance
      return _sample(self.decoder, *settings, params, jax.random.key(0), *rows)

    return costs.flops(run, self.params)

  def _contexts(self, conditions, rows, guidance):
    """What conditions become, and for guidance what none of them becomes."""
    prepared = self.decoder.prepare(conditions, rows)
    if not self.decoder.conditions:
      if guidance is not None:
        raise ValueError(f'{guidance}, but the model has no conditions')
      return None, None
    context = scoring.context(self.decoder, self.params, prepared, rows)
    if guidance is None:
      return context, None
    return context, scoring.context(self.decoder, self.params, None, rows)

  def _given(self, given, mask, num_frames, frames):
    """Checked latents, 0 where none is given, and where that is; or Nones."""
    if (given is None) != (mask is None):
      raise ValueError('given latents go with their given_mask')
    if given is None:
      return None, None
    if self.decoder.gaps is None:
      raise ValueError('given latents, but the model was made to take none')
    given, mask = np.asarray(given), np.asarray(mask)
    shape = len(num_frames), frames
    wanted = *shape, self.decoder.dimension
    if given.shape != wanted or mask.shape != shape or mask.dtype != bool:
      raise ValueError(
          f'given {given.shape} and given_mask {mask.dtype} {mask.shape}:'
          f' expected {wanted} and bool {shape}'
      )
    mask = mask & (np.arange(frames) < num_frames[:, None])
    if not np.isfinite(given[mask]).all():
      raise ValueError('given latents are not finite')
    return np.where(mask[..., None], given, 0).astype(np.float32), ~mask


@functools.partial(
    jax.jit,
    static_argnames=('decoder', 'solver', 'grid', 'guidance', 'frames'),
)
def _sample(
    decoder,
    solver,
    grid,
    guidance,
    params,
    key,
    num_frames,
    frames,
    given,
    hidden,
    context,
    null_context,
):
  """Normalised latents [B, F, D], unspecified past the rows' lengths."""
  keys = noise_lib.row_keys(key, jnp.arange(len(num_frames)))
  shape = frames, decoder.dimension
  z = noise_lib.normal(noise_lib.fold(keys, _START), shape)

  def denoiser(context):
    rows = num_frames, given, hidden, context
    return _denoiser(decoder, params, *rows)

  denoise = denoiser(context)
  if guidance is not None:
    mask = streaming_base.length_mask(num_frames, frames)
    null = denoiser(null_context)
    denoise = guidance_lib.guide(guidance, denoise, null, mask)
  steps = noise_lib.fold(keys, _STEPS)
  return sharding.whole(solvers.sample(solver, denoise, z, grid.times, steps))


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
  denoise = _denoiser(decoder, params, num_frames, None, None, context)
  return sharding.whole(
      validation.errors(denoise, latents, mask, keys, validation.levels(levels))
  )


def _denoiser(decoder, params, num_frames, given, hidden, context):
  """The decoder with all but z and t."""

  def predict(z, t):
    rows = num_frames, given, hidden, context
    return decoder.apply({'params': params}, z, t, *rows, method='predict')

  return gaussian.Denoiser(decoder.process, decoder.target, predict)
