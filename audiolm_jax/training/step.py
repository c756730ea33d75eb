"""The training step: one pure function of the state and a batch."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import optax

from audiolm_jax.ops import sharding
from audiolm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class ModelOptimizer:
  """How one model trains.

  Attributes:
    transform: its parameter transform (split and merge).
    optimizer: schedule -> optax transformation of its trainable params.
    schedule: step -> learning rate.
    clip: largest global norm of its gradient, or None.
    ema: decay of the average of its trainable params, or None.
  """

  transform: Any
  optimizer: Callable[[optax.Schedule], optax.GradientTransformation]
  schedule: optax.Schedule
  clip: float | None = None
  ema: float | None = None

  def init(self, trainable: Any) -> Any:
    """The optimizer's state before the first step."""
    return self.optimizer(self.schedule).init(trainable)

  def update(
      self,
      grads: Any,
      norm: Float[Array, ''],
      rate: Float[Array, ''],
      optimizer_state: Any,
      trainable: Any,
  ) -> tuple[Any, Any]:
    """(parameters, optimizer's state) after an update.

    Args:
      grads: of the loss.
      norm: their global norm.
      rate: the learning rate.
      optimizer_state: before the update.
      trainable: the parameters before it.
    """
    if self.clip is not None:
      factor = jnp.minimum(1.0, self.clip / jnp.maximum(norm, 1e-12))
      grads = jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)
    updates, optimizer_state = self.optimizer(lambda _: rate).update(
        grads, optimizer_state, trainable
    )
    return optax.apply_updates(trainable, updates), optimizer_state


def split_batch(batch: Mapping[str, Array], parts: int) -> dict[str, Array]:
  """[B, ...] -> [parts, B / parts, ...], every device keeping its own rows.

  Microbatch i takes the rows i, i + parts, ...: a block of rows that lies on
  one device gives each microbatch its share of it.
  """

  def split(x):
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    return sharding.constrain(x, (None, 'batch'))

  return jax.tree.map(split, dict(batch))


def rates(
    model_optimizers: Mapping[str, ModelOptimizer], step: Int[Array, '']
) -> dict[str, Float[Array, '']]:
  """{model: learning rate} of the update after `step` steps, fp32."""
  return {
      model: jnp.asarray(settings.schedule(step), jnp.float32)
      for model, settings in model_optimizers.items()
  }


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """A training step: `step(state, batch, rates) -> (state, metrics)`.

  With accumulation the loss is still sum_t w_t (sum of s_t) / (sum of W_t) over
  the whole batch: the weights of all microbatches are summed first (a pass that
  the compiler strips to what the weights need), then the gradients of
  w_t s_t / W_t are.

  If the loss, a gradient or the new state is not finite, the returned state is
  the old one, bit for bit. Learning rates and the seed (in the state) are
  inputs, so that runs that differ in them alone share one compilation.

  Attributes:
    objective: an `objectives.base.Objective`.
    model_optimizers: {model: ModelOptimizer} for every model of the objective.
    accumulation: microbatches a step; divides the batch.

  Raises:
    ValueError: for accumulation of an objective that is not additive.
  """

  objective: Any
  model_optimizers: Mapping[str, ModelOptimizer]
  accumulation: int = 1

  def __post_init__(self):
    if self.accumulation > 1 and not self.objective.additive:
      raise ValueError(
          f'config.accumulation = {self.accumulation}:'
          f' {type(self.objective).__name__} has a term that does not add over'
          ' microbatches (additive = False), so accumulation must be 1.'
      )

  def __call__(
      self,
      state: state_lib.TrainState,
      batch: Mapping[str, Array],
      rates: Mapping[str, Float[Array, '']],
  ) -> tuple[state_lib.TrainState, dict[str, Any]]:
    """The state after a step, and its metrics.

    Args:
      state: before the step.
      batch: of all microbatches.
      rates: {model: learning rate}; see the function `rates`.

    Returns:
      The state, and {'scalars': {name: array}, 'finite': {group: bool}}; groups
      are 'term/<name>', 'gradient/<model>/<module>', 'parameters/<model>' and
      'state/<model>'.
    """
    rng = jax.random.wrap_key_data(state.rng)
    rng, finish_rng = jax.random.split(jax.random.fold_in(rng, state.step))
    gradient = functools.partial(
        jax.grad(self._loss, has_aux=True), state.trainable, state
    )
    if self.accumulation == 1:
      gradients, out = gradient(batch, rng)
    else:
      gradients, out = self._accumulated(gradient, state, batch, rng)
    scalars, finite = _measures(self.objective, out)
    new, numbers, flags = self._update(state, gradients, rates)
    scalars |= numbers
    finite |= flags
    model_state = self.objective.finish(
        state.model_state, out.statistics, finish_rng
    )
    for model in sorted(model_state):
      finite[f'state/{model}'] = _all_finite(model_state[model])
    new = new.replace(step=state.step + 1, model_state=model_state)
    healthy = jnp.all(jnp.stack(list(finite.values())))
    new = jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, state)
    return new, {'scalars': scalars, 'finite': finite}

  def _update(self, state, gradients, rates):
    """The state with all models updated, and as `__call__` scalars and finite."""
    scalars, finite = {}, {}
    trainable, optimizer_state, ema = {}, {}, dict(state.ema)
    for model, settings in sorted(self.model_optimizers.items()):
      grads = gradients[model]
      norm = optax.global_norm(grads)
      scalars[f'gradient_norm/{model}'] = norm
      scalars[f'learning_rate/{model}'] = rates[model]
      finite |= _finite_groups(f'gradient/{model}', grads)
      trainable[model], optimizer_state[model] = settings.update(
          grads,
          norm,
          rates[model],
          state.optimizer_state[model],
          state.trainable[model],
      )
      # A moment can overflow where the parameters do not, yet.
      finite[f'parameters/{model}'] = _all_finite(
          (trainable[model], optimizer_state[model])
      )
      if settings.ema is not None:
        ema[model] = _average(
            state.ema[model], trainable[model], settings.ema, state.step
        )
    new = state.replace(
        trainable=trainable, optimizer_state=optimizer_state, ema=ema
    )
    return new, scalars, finite

  def _accumulated(self, gradient, state, batch, rng):
    """(gradients, output), added over microbatches."""
    parts = split_batch(batch, self.accumulation)
    rngs = jax.random.split(rng, self.accumulation)

    def weights(batch, rng):
      variables = self._variables(state.trainable, state, rng)
      return _weights(self.objective(variables, batch, rng))

    def add_weights(total, part):
      return jax.tree.map(jnp.add, total, weights(*part)), None

    def add_gradients(total, part):
      one = gradient(*part, totals)
      return jax.tree.map(jnp.add, total, one), None

    first = jax.tree.map(lambda x: x[0], (parts, rngs))
    shapes = jax.eval_shape(lambda: weights(*first))
    totals, _ = jax.lax.scan(add_weights, _zeros(shapes), (parts, rngs))
    shapes = jax.eval_shape(lambda: gradient(*first, totals))
    return jax.lax.scan(add_gradients, _zeros(shapes), (parts, rngs))[0]

  def _loss(self, trainable, state, batch, rng, totals=None):
    """(Weighted sum of the terms, output) of a (micro)batch.

    `totals` are the weights of all parts, None where this is all.
    """
    out = self.objective(self._variables(trainable, state, rng), batch, rng)
    totals = _weights(out) if totals is None else totals
    value = sum(
        factor * _ratio(out.terms[name][0], totals[name])
        for name, factor in self.objective.loss_weights.items()
    )
    return value, out

  def _variables(self, trainable, state, rng):
    """What the objective takes, by model."""
    variables = {}
    for index, (model, settings) in enumerate(
        sorted(self.model_optimizers.items())
    ):
      merge_rng = jax.random.fold_in(rng, index + 1)
      variables[model] = {
          'params': settings.transform.merge(
              trainable[model], state.frozen[model], merge_rng
          ),
          'state': state.model_state[model],
      }
    return variables


def _ratio(value, weight):
  """value / weight, and 0 where nothing was weighed."""
  return jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1), 0.0)


def _weights(out):
  return {
      name: jax.lax.stop_gradient(jnp.asarray(weight, jnp.float32))
      for name, (_, weight) in out.terms.items()
  }


def _zeros(shapes):
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _measures(objective, out):
  """Scalars to report, and which terms are finite."""
  scalars = {name: _ratio(*pair) for name, pair in out.metrics.items()}
  finite = {}
  scalars['loss'] = jnp.float32(0)
  for name, (value, weight) in out.terms.items():
    mean = _ratio(value, weight)
    scalars[f'term/{name}'] = mean
    scalars['loss'] += objective.loss_weights[name] * mean
    finite[f'term/{name}'] = jnp.isfinite(value) & jnp.isfinite(weight)
  return scalars, finite


def _all_finite(tree):
  flags = [
      jnp.all(jnp.isfinite(leaf))
      for leaf in jax.tree.leaves(tree)
      if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(flags)) if flags else jnp.bool(True)


def _finite_groups(prefix, grads):
  return {
      f'{prefix}/{module}': _all_finite(tree) for module, tree in grads.items()
  }


def _average(old, new, decay, step):
  """EMA whose decay grows with the step, so that it forgets the random start.

  min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.
  """
  t = step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(
      lambda o, n: (decay * o + (1 - decay) * n).astype(o.dtype), old, new
  )
