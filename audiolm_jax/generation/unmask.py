"""Whole rows of frames from a masked decoder, in any number of steps."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import config
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.generation import checks
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import weights
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import unmasking
from audiolm_jax.streaming import base as streaming_base


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a stage is drawn; static, so that it can be a jit argument.

  Attributes:
    order: which places are revealed at each step.
    steps: how many, each a pass through the decoder.
    schedule: how much is hidden after each; see `discrete.Absorbing`. The
      cosine reveals few places at first.
    sampler: how codes are drawn. Without a repetition window: they have no past.
    temperature_end: what the sampler's temperature is multiplied by at the end,
      to which the factor falls in equal steps from 1 (MAGNeT, 2401.04577).
    guidance_end: the guidance at the end, to which it falls with the share that
      is hidden (MAGNeT: 1); None for the same at all steps.
  """

  order: Annotated[Any, config.Kind(lambda: unmasking.ORDERS)] = (
      unmasking.ConfidenceOrder()
  )
  steps: config.Positive = 16
  schedule: Literal['linear', 'cosine'] = 'cosine'
  sampler: sampling.Sampler = sampling.Sampler()
  temperature_end: config.Share = 1.0
  guidance_end: config.NonNegative | None = None

  def __post_init__(self):
    if self.steps < 1:
      raise config.ConfigError(f'steps = {self.steps}: expected at least 1')
    if not 0 <= self.temperature_end <= 1:
      raise config.ConfigError(
          f'temperature_end = {self.temperature_end}: expected a share'
      )
    if self.sampler.repetition_window:
      raise config.ConfigError(
          f'repetition_window = {self.sampler.repetition_window}: codes that are'
          ' drawn in any order have no past'
      )
    if self.temperature_end != 1 and not self.sampler.temperature:
      raise config.ConfigError(
          f'temperature_end = {self.temperature_end} does nothing at'
          ' temperature 0'
      )


def of_stages(
    decoder: masked_lib.Masked, plans: Sequence[Plan]
) -> tuple[Plan, ...]:
  """The plan of each stage: of fewer plans the last one is of all further stages.

  Raises:
    ValueError: for no plan, or more than there are stages.
  """
  plans, stages = tuple(plans), len(decoder.order)
  if not 1 <= len(plans) <= stages:
    raise ValueError(f'{len(plans)} plans for {stages} stages')
  return plans + (plans[-1],) * (stages - len(plans))


def generate(
    decoder: masked_lib.Masked,
    params: Any,
    given: Int[Array, 'B F K'],
    given_mask: Bool[Array, 'B F K'],
    num_frames: Int[Array, 'B'],
    rng: Array,
    plans: Sequence[Plan] = (Plan(),),
    context: streaming_base.Context = None,
    null_context: streaming_base.Context = None,
    guidance: Float[Array, ''] | float = 1.0,
) -> Int[Array, 'B F K']:
  """Fills what is not given: a prompt, gaps, any set of codes may be.

  A row's codes depend on the key, its number and its own frames, and on nothing
  beside it.

  Args:
    decoder: what generates.
    params: its parameters.
    given: codes that are known, which come back as they are; anything elsewhere.
    given_mask: True where codes are known.
    num_frames: of each row.
    rng: a key.
    plans: of the decoder's stages; see `of_stages`.
    context: what the backbone sees of the conditions; see `Decoder.context`.
    null_context: what replaces it where conditions are dropped; if not None,
      predictions are guided.
    guidance: see `guidance.combine`.

  Returns:
    Codes, 0 past a row's length.

  Raises:
    ValueError: for more plans than stages, guidance without a null_context,
      codes and lengths out of range.
  """
  plans = of_stages(decoder, plans)
  guided = null_context is not None
  plain = isinstance(guidance, (int, float)) and guidance == 1
  falls = any(p.guidance_end is not None for p in plans)
  if not guided and (falls or not plain):
    raise ValueError('guidance does nothing without a null_context')
  checks.check_codes(decoder, given, given_mask, num_frames)
  if guided:
    context = guidance_lib.pair(context, null_context)
  return _generate(
      decoder,
      params,
      given,
      given_mask,
      num_frames,
      rng,
      plans,
      context,
      guidance if guided else None,
  )


@functools.partial(jax.jit, static_argnames=('decoder', 'plans'))
def _generate(
    decoder,
    params,
    given,
    given_mask,
    num_frames,
    rng,
    plans,
    context,
    guidance,
):
  """`generate`, compiled."""
  decoder, params = weights.unroll(decoder, params)
  context = weights.with_keys(decoder, params, context)
  rows = len(given)
  keys = noise_lib.row_keys(rng, jnp.arange(rows))
  mask = streaming_base.length_mask(num_frames, given.shape[1])[..., None]
  unknown = mask & ~given_mask
  codes = jnp.where(mask & given_mask, given, 0).astype(jnp.int32)
  for stage, plan in enumerate(plans):
    process = masked_lib.process(decoder, plan.schedule)
    own = unknown & (decoder.stage_of_slot == stage)
    later = unknown & (decoder.stage_of_slot > stage)

    def predict(z, t, stage=stage, plan=plan, process=process, later=later):
      masked = (z == process.mask_id) | later
      inputs = z, masked, num_frames, jnp.full(rows, stage)
      if guidance is not None:
        inputs = guidance_lib.twice(inputs)
      logits = decoder.apply(
          {'params': params}, *inputs, context, method='logits'
      )
      if guidance is None:
        return logits
      return guidance_lib.combine(logits, _scale(plan, process, guidance, t))

    codes = unmasking.sample(
        plan.order,
        process,
        predict,
        codes,
        own,
        times_lib.Grid(plan.steps).times,
        noise_lib.fold(keys, stage),
        choose=functools.partial(_choose, plan),
    )
  return codes


def _choose(plan, logits, keys, t):
  """Codes at the temperature of time t."""
  factor = plan.temperature_end + (1 - plan.temperature_end) * t
  return plan.sampler(logits / factor, keys)


def _scale(plan, process, guidance, t):
  """The guidance at time t, one for each row [B, 1, 1, 1]."""
  if plan.guidance_end is None:
    return guidance
  hidden = 1 - process.keep(t)[:, None, None, None]
  return hidden * guidance + (1 - hidden) * plan.guidance_end
