"""EnCodec's gradient balancer (Defossez et al. 2022, section 3.4).

Losses of decoded audio differ in the size of their gradients by orders of
magnitude, and these sizes change through training. The balancer scales each
loss's gradient *at the decoder's output* by a running mean of its norm, so that
a loss's weight is its share of the whole gradient, whatever its scale.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config

Losses = dict[str, Float[Array, '']]


class State(flax.struct.PyTreeNode):
  """Running means, without the bias of their start: total / weight.

  Attributes:
    totals: loss -> decayed sum of the norms.
    weight: decayed count of them.
  """

  totals: dict[str, Float[Array, '']]
  weight: Float[Array, '']


class Balanced(flax.struct.PyTreeNode):
  """What `Balancer.__call__` returns.

  Attributes:
    term: (sum, weight) whose gradient with respect to the audio is the balanced
      one, of the whole batch, per row; its value is the weighted losses'.
    norms: loss -> norm of its gradient in this batch; what `update` takes.
    losses: loss -> its value.
    aux: what the losses' function returned beside them.
  """

  term: tuple[Float[Array, ''], Float[Array, '']]
  norms: Losses
  losses: Losses
  aux: Any


@dataclasses.dataclass(frozen=True)
class Balancer:
  """Weights become shares of the gradient at the decoder's output.

  Attributes:
    decay: of the running means of the norms, a step.
    total_norm: the mean norm of a row's balanced gradient, if all gradients
      pointed the same way.
  """

  decay: config.Share = 0.999
  total_norm: config.NonNegative = 1.0

  def init(self, names) -> State:
    """Means of nothing yet, for losses of these names."""
    return State({name: jnp.zeros(()) for name in names}, jnp.zeros(()))

  def update(self, state: State, norms: Losses) -> State:
    """The means with one more batch's norms in them."""
    totals = {
        name: self.decay * state.totals[name] + norm
        for name, norm in norms.items()
    }
    return State(totals, self.decay * state.weight + 1)

  def __call__(
      self,
      state: State,
      losses: Callable[[Float[Array, 'B T C']], tuple[Losses, Any]],
      audio: Float[Array, 'B T C'],
      weights: Mapping[str, Float[Array, ''] | float],
      rows: Float[Array, ''],
  ) -> Balanced:
    """Balances the gradients of `losses` at `audio`.

    A loss's gradient is g; its norm n is the mean over rows of the row's |g|;
    the balanced gradient is total_norm sum_i (w_i / sum_j w_j) g_i / mean(n_i),
    where the running means include this batch, as theirs do. Losses are means
    over the batch, so their gradients shrink with it and the balanced one does
    not; the term has the weight `rows`, which makes it a mean again.

    Args:
      state: the running means before this batch.
      losses: decoded audio -> (scalar losses, anything else). It is
        differentiated with respect to the audio only.
      audio: decoded.
      weights: loss -> its share, before division by their sum; an array may
        change from step to step.
      rows: how many rows hold any audio.
    """
    point = jax.lax.stop_gradient(audio)
    values, pull, aux = jax.vjp(losses, point, has_aux=True)
    gradients = {}
    for name in values:
      one_hot = {n: jnp.float32(n == name) for n in values}
      (gradients[name],) = pull(one_hot)
    count = jnp.maximum(rows, 1.0)
    norms = {
        name: jnp.sum(jnp.sqrt(jnp.sum(jnp.square(g), axis=(1, 2)))) / count
        for name, g in gradients.items()
    }
    new = self.update(state, norms)
    whole = sum(weights[name] for name in values)
    balanced = jnp.zeros_like(point)
    for name, gradient in gradients.items():
      share = self.total_norm * weights[name] / jnp.maximum(whole, 1e-12)
      mean = new.totals[name] / new.weight
      balanced += share / (mean + 1e-12) * gradient
    balanced = jax.lax.stop_gradient(balanced)
    inner = jnp.sum(balanced * audio)
    weighted = sum(weights[name] * values[name] for name in values)
    # The value is the losses'; the gradient is the balanced one.
    value = inner + jax.lax.stop_gradient(rows * weighted - inner)
    return Balanced(
        term=(value, rows),
        norms=jax.lax.stop_gradient(norms),
        losses=values,
        aux=aux,
    )
