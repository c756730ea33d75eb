"""A trained flow's map, which samples in a few jumps, learned from the flow."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax.decoders import flow
from audiolm_jax.models import kinds
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import denoising
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.streaming import base as streaming_base


class Draws(denoising.Draws):
  """What a step draws for each row.

  Attributes:
    s: times to jump to, at most t.
  """

  s: Float[Array, 'B']


@dataclasses.dataclass(frozen=True)
class FlowMapDistillation(denoising.Denoising):
  """Errors of jumps along the flow of a teacher, where hidden.

  Two models: 'lm', the student, and 'teacher', the same decoder without its
  second time. Start both from a flow's run, the student's second time fresh, and
  freeze the teacher:

      models={
          'lm': train.ModelTraining(init_from=RUN, init_fresh=('^jump/',)),
          'teacher': train.ModelTraining(
              init_from=RUN,
              init_model='lm',
              param_transform=param_transforms.Frozen(),
          ),
      }

  The teacher's velocity is what jumps follow, on the student's own ways
  (`lagrangian`) or on those of noisy data (`mean_flow`). Rows with s = t are
  matched to it directly, in both. Guidance of the teacher becomes the student's
  own, at no further evaluation. Given frames go straight to what they are.

  Attributes:
    lagrangian: how much Lagrangian distillation counts (2505.18825).
    mean_flow: how much MeanFlow does (2505.13447). Its derivative is by t, too,
      of which a decoder with `time.scale` = 1000 has a large one.
    diagonal: share of the rows with s = t.
    guidance: of the teacher; None for its prediction with the condition.
    power: 0 for squared errors, 1 for those over their size in a row
      (`flow_maps.adaptive`).
    offset: what errors are large beside, with a power.
  """

  lagrangian: config.NonNegative = 1.0
  mean_flow: config.NonNegative = 0.0
  diagonal: config.Share = 0.5
  guidance: (
      Annotated[Any, config.Kind(lambda: guidance_lib.GUIDANCE)] | None
  ) = None
  power: config.Share = 0.0
  offset: Annotated[float, config.Range(min=1e-9)] = 1e-3

  def __post_init__(self):
    where = 'config.objective'
    if getattr(self.decoder, 'jump', None) is None:
      raise config.ConfigError(
          f'{where}.decoder.jump = None: a map needs a second time'
      )
    if not self.loss_weights:
      raise config.ConfigError(
          f'{where}.lagrangian = 0 and {where}.mean_flow = 0: nothing is left'
      )
    if self.guidance is not None and not self.decoder.conditions:
      raise config.ConfigError(
          f'{where}.guidance of a decoder without conditions'
      )

  @property
  def teacher(self) -> flow.Flow:
    """The decoder with one time."""
    return self.decoder.clone(jump=None)

  @property
  def loss_weights(self) -> dict[str, float]:
    named = {'lagrangian': self.lagrangian, 'mean_flow': self.mean_flow}
    return {name: weight for name, weight in named.items() if weight}

  def init(self, rng: Array) -> objectives_base.Variables:
    student, teacher = jax.random.split(rng)
    return {
        'lm': kinds.Description(self.decoder).init(student),
        'teacher': kinds.Description(self.teacher).init(teacher),
    }

  def draw(
      self, rng: Array, latents: Float[Array, 'B F D'], num_frames: Any
  ) -> Draws:
    """Times to jump from and to, noise and gaps for the rows of a batch."""
    rng, pair_rng = jax.random.split(rng)
    row_rng, _ = jax.random.split(rng)
    e, hidden = self._noise_and_gaps(row_rng, latents, num_frames)
    t, s = flow_maps.time_pairs(
        pair_rng,
        self.decoder.process,
        self.density,
        len(latents),
        self.diagonal,
    )
    return Draws(t, e, hidden, s)

  def map_errors(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      draws: Draws,
      rngs: dict[str, Array] | None = None,
  ) -> dict[str, Float[Array, 'B F']]:
    """Weighted squared errors by term, mean over dimensions; 0 where not hidden.

    Args:
      variables: of both models.
      batch: whose rows these are.
      draws: of the same rows.
      rngs: streams 'dropout' (the student's) and 'conditions' (dropped for both);
        None drops nothing.
    """
    latents, num_frames, conditions = self.decoder.read(batch)
    exists = streaming_base.length_mask(num_frames, latents.shape[1])
    x = streaming_base.zero_masked(latents, exists)
    process, t, s = self.decoder.process, draws.t, draws.s
    straight = process.target('u', x, draws.e, t)
    rows = num_frames, *self._infilling(x, draws.hidden)

    def model(decoder, name, conditions=conditions, rngs=rngs):
      params = variables[name]['params']
      predict = _predictor(decoder, params, rows, conditions, rngs or {})
      return lambda *point: jnp.where(
          draws.hidden[..., None], predict(*point), straight
      )

    student = model(self.decoder, 'lm')
    # A teacher is as it is sampled: all that is dropped of it is conditions.
    dropped = {k: v for k, v in (rngs or {}).items() if k == 'conditions'}
    teach = gaussian.Denoiser(
        process, 'u', model(self.teacher, 'teacher', rngs=dropped)
    )
    if self.guidance is not None:
      null = gaussian.Denoiser(
          process, 'u', model(self.teacher, 'teacher', None, None)
      )
      teach = guidance_lib.guide(self.guidance, teach, null, draws.hidden)

    z, errors = process.corrupt(x, draws.e, t), {}
    if self.lagrangian:
      errors['lagrangian'] = flow_maps.lagrangian_errors(
          student, z, t, s, teach.predict
      )
    if self.mean_flow:
      errors['mean_flow'] = flow_maps.mean_flow_errors(
          student, z, t, s, teach.predict(z, t)
      )
    weight = self.weight.factor(process, 'u', t)[:, None]
    return {
        name: jnp.where(draws.hidden, weight * error, 0)
        for name, error in errors.items()
    }

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    rng, dropout, dropped = jax.random.split(rng, 3)
    latents, num_frames, _ = self.decoder.read(batch)
    draws = self.draw(rng, latents, num_frames)
    errors = self.map_errors(
        variables, batch, draws, {'dropout': dropout, 'conditions': dropped}
    )
    count = jnp.sum(draws.hidden, axis=1).astype(jnp.float32)
    total = jnp.sum(count)
    terms, metrics = {}, {}
    for name, error in errors.items():
      rows = jnp.sum(error, axis=1) / jnp.maximum(count, 1)
      counted = flow_maps.adaptive(rows, self.offset, self.power)
      terms[name] = jnp.sum(count * counted), total
      metrics[f'{name}_error'] = jnp.sum(error), total
    metrics['hidden'] = total, jnp.sum(num_frames).astype(jnp.float32)
    return objectives_base.Output(terms=terms, metrics=metrics)


def _predictor(decoder, params, rows, conditions, rngs):
  """A decoder of z, t and, of a map, s; what conditions become once."""
  apply = {'params': params}
  context = None
  if decoder.conditions:
    context = decoder.apply(
        apply, conditions, len(rows[0]), method='context', rngs=rngs
    )

  def predict(z, t, s=None):
    return decoder.apply(
        apply, z, t, *rows, context, s=s, method='predict', rngs=rngs
    )

  return predict
