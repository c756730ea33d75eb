"""What stable-audio tells its decoder, of a text and of two durations."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.streaming import base as streaming_base

NUMBERS = ('start', 'total')
# Of a number: no config.json says how many.
_FREQUENCIES = 128


class Number(nn.Module):
  """A number in a range as itself, and as sines and cosines, projected.

  Attributes:
    width: of the vector.
    least: what smaller numbers are taken for.
    most: what larger numbers are taken for.
  """

  width: int
  least: float
  most: float

  @nn.compact
  def __call__(self, x: Float[Array, 'B']) -> Float[Array, 'B E']:
    x = jnp.clip(x.astype(jnp.float32), self.least, self.most)
    x = ((x - self.least) / (self.most - self.least))[:, None]
    init = nn.initializers.normal(1.0)
    turns = ops.weight(self, 'turns', init, (_FREQUENCIES,), (None,))
    angles = 2 * np.pi * x * ops.materialize(turns, jnp.float32)
    waves = jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return ops.linear(self, 'out', waves, self.width, (None, None), True)


class Acting(nn.Module):
  """Perceptrons over what the decoder attends to, and over its token.

  Attributes:
    cross: width of what it attends to.
    token: its width.
  """

  cross: int
  token: int

  @nn.compact
  def __call__(
      self, cross: Float[Array, 'B S E'], row: Float[Array, 'B G']
  ) -> dict[str, Array]:
    """A context of the decoder, which attends to all of `cross`."""
    return {
        'cross': self._perceptron('cross', cross, self.cross),
        'cross_mask': jnp.ones(cross.shape[:2], bool),
        'token': self._perceptron('token', row, self.token),
    }

  @nn.nowrap
  def _perceptron(self, name, x, width):
    axes = None, None
    x = nn.silu(ops.linear(self, f'{name}_inner', x, width, axes))
    return ops.linear(self, f'{name}_outer', x, width, axes)


class Conditions(nn.Module):
  """What acts on the decoder, of states of a text and of two numbers.

  Attributes:
    text_width: of the text's states.
    width: of what they, and each of the numbers, become.
    acting: what these are to the decoder.
    least: of the numbers.
    most: of the numbers.
    dtype: of what acts.
  """

  text_width: int
  width: int
  acting: Acting
  least: float
  most: float
  dtype: str = 'float32'

  @nn.compact
  def __call__(
      self,
      states: Float[Array, 'B S T'],
      lengths: Int[Array, 'B'],
      seconds: Float[Array, 'B 2'],
  ) -> dict[str, Array]:
    """A context of the decoder.

    Past a text stand zeros that are attended to, as there, where texts are
    filled up: so it depends on S.

    Args:
      states: anything past the lengths.
      lengths: 0 for no text.
      seconds: at which a clip starts, and how many its recording has.
    """
    mask = streaming_base.length_mask(lengths, states.shape[1])
    x = streaming_base.zero_masked(states.astype(self.dtype), mask)
    if self.text_width != self.width:
      x = ops.linear(self, 'text', x, self.width, (None, None), True)
      x = streaming_base.zero_masked(x, mask)
    numbers = [
        Number(self.width, self.least, self.most, name=name)(seconds[:, i])
        for i, name in enumerate(NUMBERS)
    ]
    numbers = jnp.stack(numbers, axis=1).astype(self.dtype)
    cross = jnp.concatenate([x, numbers], axis=1)
    return self.acting(cross, numbers.reshape(len(numbers), -1))
