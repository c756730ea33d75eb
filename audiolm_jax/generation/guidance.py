"""Classifier-free guidance (2207.12598): two predictions of one model.

Rows with their conditions and the same rows without go through the model as one
batch of 2B rows, the conditional ones first, and continue with the same codes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax.streaming import base as streaming_base


def pair(context: Any, null_context: Any) -> streaming_base.Context:
  """The context of 2B rows.

  Args:
    context: arrays that lead with B.
    null_context: what stands in their place where a condition is dropped, as it
      was in training; the same tree. A first axis of 1 serves all rows.
  """

  def both(one, other):
    other = jnp.broadcast_to(other, one.shape).astype(one.dtype)
    return jnp.concatenate([one, other])

  return jax.tree.map(both, context, null_context)


def twice(tree: Any) -> Any:
  """Arrays [B, ...] for both halves of the rows."""
  return jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)


def combine(
    logits: Float[Array, 'R *n V'], scale: Float[Array, ''] | float
) -> Float[Array, 'B *n V']:
  """unconditional + scale (conditional - unconditional), of R = 2B rows.

  Exactly the conditional ones for scale 1, and the unconditional ones for 0.
  """
  conditional, unconditional = jnp.split(logits, 2)
  mixed = scale * conditional + (1 - scale) * unconditional
  # Codes that there are not: 0 x inf is NaN.
  return jnp.where(conditional == -jnp.inf, -jnp.inf, mixed)
