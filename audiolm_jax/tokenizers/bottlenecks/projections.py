"""Linear maps of a bottleneck, one or one for each level, as pure functions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import ops


def init(
    rng: Array,
    inputs: int,
    outputs: int,
    *,
    use_bias: bool = False,
    weight_norm: bool = False,
    levels: int | None = None,
) -> dict[str, Any]:
  """Boxed params: 'kernel' [D, E], and if asked for 'bias' and 'gain' [E].

  Args:
    rng: for the kernel.
    inputs: D.
    outputs: E.
    use_bias: whether a bias is added.
    weight_norm: whether the kernel is a direction, with a gain for each output.
    levels: a leading axis of this many maps, to scan over; default none.
  """
  lead = () if levels is None else (levels,)
  axes = () if levels is None else ('layers',)

  def box(value, *names):
    return nn.LogicallyPartitioned(value, (*axes, *names))

  kernel = jax.random.normal(rng, (*lead, inputs, outputs)) / inputs**0.5
  params = {'kernel': box(kernel, 'channels_in', 'channels_out')}
  if use_bias:
    params['bias'] = box(jnp.zeros((*lead, outputs)), None)
  if weight_norm:
    params['gain'] = box(jnp.linalg.norm(kernel, axis=-2), None)
  return params


def apply(
    params: dict[str, Any], x: Float[Array, 'B F D']
) -> Float[Array, 'B F E']:
  """x times the kernel, of whatever kind it is, in fp32."""
  kernel = params['kernel']
  if 'gain' in params:
    kernel = ops.weight_norm(kernel, params['gain'])
  with jax.default_matmul_precision('highest'):
    y = ops.einsum('bfd,de->bfe', x.astype(jnp.float32), kernel)
  return y + params['bias'] if 'bias' in params else y
