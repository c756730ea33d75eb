"""Networks of heads that denoise frames (`AdalnMlp`), as others have them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax.decoders import latent_heads
from audiolm_jax.interop import base as interop_base


@dataclasses.dataclass(frozen=True)
class Head:
  """A head by itself; static. variables = {params}.

  Attributes:
    head: gives a frame.
    width: of the backbone's outputs.
    dimension: of the latents.
  """

  head: latent_heads.LatentHead
  width: int
  dimension: int

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    h, x = jnp.zeros((1, self.width)), jnp.zeros((1, self.dimension))
    keys = jax.random.split(rng, 1)
    variables = self.head.init(rng, h, x, keys, method='losses')
    return {'params': variables['params']}


def modulation(
    ours: str, theirs: str, parts: int, bias: bool
) -> list[interop_base.Entry]:
  """Of a norm: ours has the factor before the offset, theirs behind it.

  Args:
    ours: path of the matrix; the bias is at `ours`_bias.
    theirs: name of the module.
    parts: factor and offset, and perhaps more behind them.
    bias: whether there is one.
  """

  def exchanged(x):
    shift, scale, *rest = np.split(x, parts, axis=-1)
    return np.concatenate([scale, shift, *rest], axis=-1)

  layout = interop_base.Layout(
      (f'{theirs}.weight',),
      lambda w: (exchanged(w.T),),
      lambda w: (exchanged(w).T,),
  )
  entries = [interop_base.Entry((ours,), (layout,))]
  if bias:
    layout = interop_base.Layout(
        (f'{theirs}.bias',),
        lambda b: (exchanged(b),),
        lambda b: (exchanged(b),),
    )
    entries.append(interop_base.Entry((f'{ours}_bias',), (layout,)))
  return entries
