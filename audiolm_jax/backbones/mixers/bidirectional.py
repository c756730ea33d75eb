"""Two of a causal mixer: one from the left, one from the right."""

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from audiolm_jax import config
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import lstm

# Attention has a mask_kind of its own.
CAUSAL = {
    'lstm': lstm.Lstm,
    'mamba2': mamba2.Mamba2,
    'rg_lru': rg_lru.RgLru,
    's4d': s4d.S4d,
}


class Bidirectional(streaming_base.Steppable):
  """The sum of a mixer and of another one of its kind over the reversed row.

  Each row is reversed within its own length. It has no steps.

  Attributes:
    mixer: causal; for attention, use mask_kind='bidirectional' instead.
  """

  mixer: Annotated[Any, config.Kind(lambda: CAUSAL)] = mamba2.Mamba2()

  def __post_init__(self):
    if isinstance(self.mixer, (attention.Attention, Bidirectional)):
      raise config.ConfigError(
          f'mixer = {type(self.mixer).__name__}: expected a causal one of'
          f" {sorted(CAUSAL)}; attention has mask_kind='bidirectional'"
      )
    super().__post_init__()

  @property
  def causal(self) -> bool:
    return False

  @property
  def steppable(self) -> bool:
    return False

  @property
  def receptive_field(self) -> int | None:
    return self.mixer.receptive_field

  @nn.nowrap
  def reach(self, start, stop):
    before = self.mixer.reach(start, stop)
    if before is None:
      return None
    # The same on the other side.
    return before[0], stop + start - before[0]

  @nn.nowrap
  def initial_state(self, batch, spec):
    """Refuses: it needs what comes later.

    Raises:
      ValueError: always.
    """
    raise ValueError('a bidirectional mixer has no steps')

  @nn.compact
  def __call__(self, x, mask, context=None):
    x = streaming_base.zero_masked(x, mask)
    forward = self.mixer.clone(parent=self, name='forward')
    backward = self.mixer.clone(parent=self, name='backward')
    y, _ = forward(x, mask, context)
    z, _ = backward(_reversed(x, mask), mask, context)
    return y + _reversed(z, mask), mask

  def process(self, x, mask, state, context):
    """Refuses: see `initial_state`."""
    return self.initial_state(len(x), None)


def _reversed(
    x: Shaped[Array, 'B N *d'], mask: Bool[Array, 'B N']
) -> Shaped[Array, 'B N *d']:
  """The valid positions of each row in reverse; the others stay."""
  at = jnp.arange(x.shape[1])
  count = jnp.sum(mask, axis=1)[:, None]
  at = jnp.where(at < count, count - 1 - at, at)
  return jnp.take_along_axis(x, at.reshape(*at.shape, *[1] * (x.ndim - 2)), 1)
