"""The training step: one pure function of the state and a batch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import optax

from audiolm_jax.ops import sharding
from audiolm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class ModelOptimizer:
  """How one model trains.

  Attributes:
    transform: its parameter transform (split and merge).
    optimizer: an optax transformation of its trainable params.
    schedule: the learning rate, for the metrics.
    clip: largest global norm of its gradient, or None.
    ema: decay of the average of its trainable params, or None.
  """

  transform: Any
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  clip: float | None = None
  ema: float | None = None


def split_batch(batch: Mapping[str, Array], parts: int) -> dict[str, Array]:
  """[B, ...] -> [parts, B / parts, ...], every device keeping its own rows.

  Microbatch i takes the rows i, i + parts, ...: a block of rows that lies on
  one device gives each microbatch its share of it.
  """

  def split(x):
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    return sharding.constrain(x, (None, 'batch'))

  return jax.tree.map(split, dict(batch))


def make(
    objective: Any,
    model_optimizers: Mapping[str, ModelOptimizer],
    accumulation: int = 1,
):
  """Builds `step(state, batch) -> (state, metrics)`.

  With accumulation the loss is still sum_t w_t (sum of s_t) / (sum of W_t) over
  the whole batch: the weights of all microbatches are summed first (a pass that
  the compiler strips to what the weights need), then the gradients of
  w_t s_t / W_t are.

  If the loss, a gradient or the new state is not finite, the returned state is
  the old one, bit for bit.

  Args:
    objective: an `objectives.base.Objective`.
    model_optimizers: {model: ModelOptimizer} for every model of the objective.
    accumulation: microbatches a step; divides the batch.

  Returns:
    The step. Its metrics are {'scalars': {name: array}, 'finite': {group:
    bool}}; groups are 'term/<name>', 'gradient/<model>/<module>',
    'parameters/<model>' and 'state/<model>'.

  Raises:
    ValueError: for accumulation of an objective that is not additive.
  """
  if accumulation > 1 and not objective.additive:
    raise ValueError(
        f'config.accumulation = {accumulation}: {type(objective).__name__} has'
        ' a term that does not add over microbatches (additive = False), so'
        ' accumulation must be 1.'
    )

  def output(trainable, state, batch, rng):
    variables = {}
    for index, (model, model_optimizer) in enumerate(
        sorted(model_optimizers.items())
    ):
      merge_rng = jax.random.fold_in(rng, index + 1)
      variables[model] = {
          'params': model_optimizer.transform.merge(
              trainable[model], state.frozen[model], merge_rng
          ),
          'state': state.model_state[model],
      }
    return objective(variables, batch, rng)

  def loss(trainable, state, batch, rng, totals=None):
    out = output(trainable, state, batch, rng)
    totals = _weights(out) if totals is None else totals
    value = sum(
        factor * _ratio(out.terms[name][0], totals[name])
        for name, factor in objective.loss_weights.items()
    )
    return value, out

  gradient = jax.grad(loss, has_aux=True)

  def one(state, batch, rng):
    return gradient(state.trainable, state, batch, rng)

  def several(state, batch, rng):
    parts = split_batch(batch, accumulation)
    rngs = jax.random.split(rng, accumulation)

    def add_weights(total, part):
      found = _weights(output(state.trainable, state, *part))
      return jax.tree.map(jnp.add, total, found), None

    def add_gradients(total, part):
      found = gradient(state.trainable, state, *part, totals)
      return jax.tree.map(jnp.add, total, found), None

    first = jax.tree.map(lambda x: x[0], (parts, rngs))
    weights = jax.eval_shape(
        lambda: _weights(output(state.trainable, state, *first))
    )
    totals, _ = jax.lax.scan(add_weights, _zeros(weights), (parts, rngs))
    shapes = jax.eval_shape(
        lambda: gradient(state.trainable, state, *first, totals)
    )
    return jax.lax.scan(add_gradients, _zeros(shapes), (parts, rngs))[0]

  def step(state: state_lib.TrainState, batch):
    rng = jax.random.wrap_key_data(state.rng)
    rng, finish_rng = jax.random.split(jax.random.fold_in(rng, state.step))
    compute = one if accumulation == 1 else several
    gradients, out = compute(state, batch, rng)
    scalars, finite = _measures(objective, out)
    trainable, optimizer_state, ema = {}, {}, dict(state.ema)
    for model, model_optimizer in sorted(model_optimizers.items()):
      old, grads = state.trainable[model], gradients[model]
      norm = optax.global_norm(grads)
      scalars[f'gradient_norm/{model}'] = norm
      scalars[f'learning_rate/{model}'] = jnp.asarray(
          model_optimizer.schedule(state.step), jnp.float32
      )
      finite |= _finite_groups(f'gradient/{model}', grads)
      if model_optimizer.clip is not None:
        factor = jnp.minimum(
            1.0, model_optimizer.clip / jnp.maximum(norm, 1e-12)
        )
        grads = jax.tree.map(lambda g, f=factor: (g * f).astype(g.dtype), grads)
      updates, optimizer_state[model] = model_optimizer.optimizer.update(
          grads, state.optimizer_state[model], old
      )
      trainable[model] = optax.apply_updates(old, updates)
      # A moment can overflow where the parameters do not, yet.
      finite[f'parameters/{model}'] = _all_finite(
          (trainable[model], optimizer_state[model])
      )
      if model_optimizer.ema is not None:
        ema[model] = _average(
            state.ema[model], trainable[model], model_optimizer.ema, state.step
        )
    model_state = objective.finish(
        state.model_state, out.statistics, finish_rng
    )
    for model in sorted(model_state):
      finite[f'state/{model}'] = _all_finite(model_state[model])
    new = state.replace(
        step=state.step + 1,
        trainable=trainable,
        model_state=model_state,
        optimizer_state=optimizer_state,
        ema=ema,
    )
    healthy = jnp.all(jnp.stack(list(finite.values())))
    new = jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, state)
    return new, {'scalars': scalars, 'finite': finite}

  return step


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
