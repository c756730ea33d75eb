"""Which frames a model of latents is to fill in, in training."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.config import bounds
from audiolm_jax.streaming import base as streaming_base


@dataclasses.dataclass(frozen=True)
class Gaps:
  """All frames of most rows; of others what a beginning or pieces leave.

  The shares are those of stable-audio-tools.

  Attributes:
    prefix: share of rows that keep a beginning of any length.
    segments: share of rows that hide segments.
    most_segments: of those, 1 to so many, any number as often. Their ends are
      anywhere: s segments are about s / (2 s + 1) of a row.
    piece: share of rows that hide one piece, anywhere. F5-TTS (2410.06885):
      0.7, and of the others all.
    least: of a row that such a piece is, to all of it, any length as often.
  """

  prefix: config.Share = 0.1
  segments: config.Share = 0.1
  most_segments: config.Positive = 10
  piece: Annotated[config.Share, config.Added()] = 0.0
  least: Annotated[config.Share, config.Added()] = 0.7

  def __post_init__(self):
    if self.prefix + self.segments + self.piece > 1:
      raise config.ConfigError(
          f'prefix = {self.prefix}, segments = {self.segments} and piece ='
          f' {self.piece}: more than all rows'
      )
    for share, idle in (('segments', 'most_segments'), ('piece', 'least')):
      if not getattr(self, share):
        bounds.idle(self, (idle,), f'where {share} = 0')

  def draw(
      self, keys: Key[Array, 'B'], num_frames: Int[Array, 'B'], count: int
  ) -> Bool[Array, 'B F']:
    """Frames to fill in: at least one of each row that has any.

    Args:
      keys: of the rows, each of which is drawn by itself.
      num_frames: of the rows; what is past them is not hidden.
      count: F.
    """
    rows = jax.vmap(self._row, (0, 0, None))(keys, num_frames, count)
    return rows & streaming_base.length_mask(num_frames, count)

  def _row(self, key, length, count):
    kind, place, number, cut, piece = jax.random.split(key, 5)
    frame = jnp.arange(count)
    # Any frame of the row, and the whole beginning before it.
    first = jnp.floor(jax.random.uniform(place) * length)
    after = frame >= first
    # An odd number of ends of segments before a frame: it is within one.
    most = self.most_segments
    ends = jnp.floor(jax.random.uniform(cut, (2 * most,)) * (length + 1))
    taken = jnp.arange(2 * most) < 2 * jax.random.randint(
        number, (), 1, most + 1
    )
    crossed = jnp.sum((ends <= frame[:, None]) & taken, axis=1)
    within = (crossed % 2 == 1) | (frame == first)
    size, start = jax.random.uniform(piece, (2,))
    size = self.least + (1 - self.least) * size
    size = jnp.maximum(jnp.round(size * length), 1)
    start = jnp.floor(start * (length - size + 1))
    whole = (start <= frame) & (frame < start + size)
    share = jax.random.uniform(kind)
    ends = np.cumsum([self.prefix, self.segments, self.piece])
    kinds = [share < end for end in ends]
    return jnp.select(kinds, [after, within, whole], True)
