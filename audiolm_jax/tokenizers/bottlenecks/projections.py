"""Linear maps of a bottleneck, one or one for each level, as pure functions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
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


def around(
    rng: Array, dimension: int, width: int, project: bool, given: int = 1
) -> dict[str, Any]:
  """Boxed maps with bias to `given` times the width of the codes, and back.

  Args:
    rng: for the kernels.
    dimension: D, the encoder's width.
    width: E, of the codes.
    project: whether there are maps; without them the result is empty.
    given: numbers that the bottleneck takes for each one that it gives.

  Raises:
    ConfigError: without maps, if the encoder's width is not what is taken.
  """
  if not project:
    if dimension != given * width:
      raise config.ConfigError(
          f'project = False, but the encoder has width {dimension} and the'
          f' bottleneck takes {given * width}'
      )
    return {}
  in_rng, out_rng = jax.random.split(rng)
  return {
      'in': init(in_rng, dimension, given * width, use_bias=True),
      'out': init(out_rng, width, dimension, use_bias=True),
  }
