"""Mixtures of experts: routing, dispatch without capacities, and their losses.

Rows are sorted by expert, so that each expert multiplies the rows that chose
it and no others: none is dropped, whatever the balance.
"""

from collections.abc import Callable
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.ops import sharding


class Routing(NamedTuple):
  """Where each position goes.

  Attributes:
    experts: the k chosen ones.
    weights: of their outputs, fp32.
  """

  experts: Int[Array, 'B N k']
  weights: Float[Array, 'B N k']


def route(
    logits: Float[Array, 'B N E'],
    top_k: int,
    normalise: Literal['top_k', 'all'] = 'top_k',
) -> Routing:
  """The k experts of the highest logits.

  Args:
    logits: fp32.
    top_k: k.
    normalise: the softmax runs over the chosen logits (Mixtral 2401.04088,
      gpt-oss), or over all of them (Switch 2101.03961, eq. 1).
  """
  chosen, experts = jax.lax.top_k(logits, top_k)
  over = chosen if normalise == 'top_k' else logits
  total = jax.nn.logsumexp(over, axis=-1, keepdims=True)
  return Routing(experts, jnp.exp(chosen - total))


def dispatch(
    x: Float[Array, 'B N D'],
    mask: Bool[Array, 'B N'],
    routing: Routing,
    experts: int,
    function: Callable[[Array, Array, Array], Array],
) -> Float[Array, 'B N F']:
  """The weighted sum of what each position's experts make of it.

  Args:
    x: finite.
    mask: positions that exist; the others go to no expert and get zeros.
    routing: from `route`.
    experts: how many there are.
    function: `function(rows [M D], group_sizes [E], expert [M]) -> [M F]` with
      rows sorted by expert, as `ops.ragged_dot` takes them.
  """
  # The sort is over all positions: those of the device's own rows.
  local = functools.partial(_dispatch, experts=experts, function=function)
  return sharding.by_rows(local, x, mask, routing)


def _dispatch(x, mask, routing, experts, function):
  batch, length, k = routing.experts.shape
  expert = jnp.where(mask[..., None], routing.experts, experts).reshape(-1)
  order = jnp.argsort(expert, stable=True)
  sizes = jnp.zeros(experts, jnp.int32).at[expert].add(1, mode='drop')
  rows = x.reshape(batch * length, -1)[order // k]
  expert = jnp.minimum(expert[order], experts - 1)
  y = function(rows, sizes, expert)
  back = (
      jnp.zeros_like(order)
      .at[order]
      .set(jnp.arange(order.size), unique_indices=True)
  )
  y = y[back].reshape(batch, length, k, -1)
  weights = jnp.where(mask[..., None], routing.weights, 0).astype(y.dtype)
  return jnp.einsum('bnkf,bnk->bnf', y, weights)


def load_balance(
    logits: Float[Array, 'B N E'], mask: Bool[Array, 'B N'], routing: Routing
) -> Float[Array, 'B']:
  """E sum_e f_e P_e of each row, times its positions (2101.03961, eq. 4-6).

  f_e is the share of the row's choices that fell on an expert, P_e its mean
  probability; 1 for uniform ones, and up to E for collapsed ones. Taken row by
  row, as in DeepSeek-V3 (2412.19437, eq. 17-20), it adds over batches.
  """
  experts = logits.shape[-1]
  length = jnp.sum(mask, axis=1).astype(jnp.float32)
  some = jnp.maximum(length, 1)[:, None]
  chosen = jax.nn.one_hot(routing.experts, experts, dtype=jnp.float32)
  chosen = jnp.mean(chosen, axis=2) * mask[..., None]
  share = jnp.sum(chosen, axis=1) / some
  probability = jax.nn.softmax(logits, axis=-1)
  probability = jnp.where(mask[..., None], probability, 0)
  mean = jnp.sum(probability, axis=1) / some
  return experts * jnp.sum(share * mean, axis=1) * length


def router_z(
    logits: Float[Array, 'B N E'], mask: Bool[Array, 'B N']
) -> Float[Array, 'B']:
  """logsumexp(logits)^2, summed over each row (ST-MoE, 2202.08906, eq. 5)."""
  square = jnp.square(jax.nn.logsumexp(logits, axis=-1))
  return jnp.sum(jnp.where(mask, square, 0), axis=1)
