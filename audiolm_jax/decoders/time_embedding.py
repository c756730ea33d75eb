"""Times of a process as vectors."""

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.config import bounds


class TimeEmbedding(nn.Module):
  """Cosines and sines of a time, then a perceptron (2212.09748, section 3.2).

  Attributes:
    frequencies: how many; of each a cosine and a sine.
    scale: the highest of them, in radians over the whole of (0, 1). Most public
      models have 1000; JASCO and Kyutai's have 1.
    span: the highest over a little less than the lowest.
    spacing: geometric frequencies are given by `scale` and `span`; gaussian ones
      are parameters, drawn at the start (2006.10739; stable-audio).
    turns: standard deviation of gaussian frequencies, in turns over the whole of
      (0, 1).
    use_bias: whether the perceptron's layers have biases.
    reverse: whether it is of 1 - t, as models have it whose data is at 1.
    closing: of what the perceptron gives: nothing, or it is divided by its
      standard deviation (of D - 1 degrees of freedom; the mean stays), and has a
      learned factor (Kyutai's Pocket-TTS).
    closing_epsilon: added to the variance there.

  Raises:
    ConfigError: for a field that does nothing beside the others.
  """

  frequencies: config.Positive = 128
  scale: config.NonNegative = 1000.0
  span: Annotated[float, config.Range(min=1)] = 10_000.0
  spacing: Annotated[Literal['geometric', 'gaussian'], config.Added()] = (
      'geometric'
  )
  turns: Annotated[config.NonNegative, config.Added()] = 1.0
  use_bias: Annotated[bool, config.Added()] = True
  reverse: Annotated[bool, config.Added()] = False
  closing: Annotated[Literal['none', 'deviation'], config.Added()] = 'none'
  closing_epsilon: Annotated[config.NonNegative, config.Added()] = 1e-5

  def __post_init__(self):
    unused = {'gaussian': ('scale', 'span'), 'geometric': ('turns',)}
    where = f'where spacing = {self.spacing!r}'
    bounds.idle(self, unused.get(self.spacing, ()), where)
    if self.closing == 'none':
      bounds.idle(self, ('closing_epsilon',), "where closing = 'none'")
    super().__post_init__()

  @nn.compact
  def __call__(
      self, t: Float[Array, 'B'], width: int, zero: bool = False
  ) -> Float[Array, 'B D']:
    """Vectors of width D, in single precision.

    Args:
      t: times.
      width: D.
      zero: whether all vectors are 0 until the perceptron has learned.
    """
    t = t.astype(jnp.float32)
    t = 1 - t if self.reverse else t
    angles = t[:, None] * self._radians()
    waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    to = width, (None, 'embed'), self.use_bias
    x = ops.linear(self, 'inner', waves, *to)
    options = {'init': nn.initializers.zeros} if zero else {}
    y = ops.linear(self, 'outer', nn.silu(x), *to, **options)
    if self.closing == 'none':
      return y
    init = nn.initializers.ones
    scale = ops.weight(self, 'closing_scale', init, (width,), (None,))
    square = jnp.var(y, axis=-1, keepdims=True, ddof=1)
    return (
        y
        * jax.lax.rsqrt(square + self.closing_epsilon)
        * (ops.materialize(scale, jnp.float32))
    )

  @nn.nowrap
  def _radians(self):
    """Over the whole of (0, 1), of each frequency."""
    if self.spacing == 'gaussian':
      init = nn.initializers.normal(self.turns)
      turns = ops.weight(self, 'turns', init, (self.frequencies,), (None,))
      return 2 * np.pi * ops.materialize(turns, jnp.float32)
    place = np.arange(self.frequencies) / self.frequencies
    return (self.scale * self.span**-place).astype(np.float32)
