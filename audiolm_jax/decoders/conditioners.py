"""Conditions: what a decoder is given beside the codes, and where it acts.

A condition comes as `values` [B, S, ...] and `lengths` [B] (`data/factors.py`)
and becomes up to S vectors of the backbone's width. How they act:

    prefix  as positions before the first step, not scored, which mixers see
    add     their mean, added to the input of every step
    film    their mean, which scales and shifts (a backbone that is `adaptive`)
    cross   as what every layer attends to (a backbone with `cross`)
    token   their mean, added to the position that is the time's (a decoder that
            denoises, with `time_token`)
    frames  each of them, added where its frame comes in (a decoder that sees all
            frames) or is to be predicted next (one that goes step by step)

Of several conditions, prefixes stand one behind the other, additions add up,
and what cross-attention or FiLM get is concatenated, in the order of names.

A length of 0 is no condition: one learned vector stands in its place. `dropout`
does the same to rows at random, so that one model learns both distributions
that classifier-free guidance (2207.12598) mixes.
"""

import abc
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.data import factors
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base

# By name: {'values': [B, S, ...], 'lengths': [B]}.
Conditions = Mapping[str, Mapping[str, Array]]


class Vectors(NamedTuple):
  """What one condition has become.

  Attributes:
    x: the vectors, unspecified past
    lengths: at least 1.
  """

  x: Float[Array, 'B S D']
  lengths: Int[Array, 'B']


class Conditioner(nn.Module, abc.ABC):
  """One condition; subclasses embed what it may be.

  Attributes:
    how: it acts; see the top of this file.
    dropout: probability that a row has no condition, where there is an rng
      stream 'conditions'.
  """

  how: Literal['prefix', 'add', 'film', 'cross', 'token'] = 'cross'
  dropout: config.Share = 0.0

  @property
  def _init(self):
    """Of vectors: beside embeddings of codes they are as small as those."""
    small = self.how in ('prefix', 'add', 'frames')
    return nn.initializers.normal(0.02 if small else 1.0)

  @nn.compact
  def __call__(
      self,
      values: Any,
      lengths: Int[Array, 'B'],
      width: int,
      dtype: jnp.dtype,
  ) -> Vectors:
    """The condition as vectors.

    Args:
      values: [B, S, ...], anything past the lengths.
      lengths: 0 for no condition.
      width: D.
      dtype: of the vectors.
    """
    kept = lengths > 0
    if self.dropout and self.has_rng('conditions'):
      rng = self.make_rng('conditions')
      kept &= ~jax.random.bernoulli(rng, self.dropout, lengths.shape)
    mask = streaming_base.length_mask(lengths, values.shape[1])
    wide = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
    x = self.embed(jnp.where(wide, values, 0), mask, width, dtype)
    x = sharding.constrain(x, ('batch',))
    null = ops.weight(self, 'null', self._init, (width,), (None,))
    null = ops.materialize(null, dtype)
    if self.how == 'frames':
      # Of frames past the last one, nothing is known.
      x = jnp.where((kept[:, None] & mask)[..., None], x, null)
      beyond = jnp.broadcast_to(null, (len(x), 1, width))
      return Vectors(jnp.concatenate([x, beyond], axis=1), lengths)
    x = jnp.where(kept[:, None, None], x, null)
    return Vectors(x, jnp.where(kept, lengths, 1))

  @nn.nowrap
  @abc.abstractmethod
  def embed(self, values, mask, width, dtype) -> Float[Array, 'B S D']:
    """The vectors of values that are 0 where masked."""

  @nn.nowrap
  def _table(self, name, size, width):
    return ops.weight(self, name, self._init, (size, width), ('vocab', 'embed'))

  @nn.nowrap
  def _by_slot(self, sizes, codes, width, dtype):
    """The sum over slots of the vectors of codes [B, S, K]."""
    table = self._table('table', sum(sizes), width)
    offsets = np.array([0, *np.cumsum(sizes)[:-1]])
    return ops.take(table, codes + offsets, dtype).sum(axis=2)

  @nn.nowrap
  def _project(self, x, width):
    """x [B, S, E] at the backbone's width."""
    scale = 0.02**2 if self.how == 'add' else 1.0
    init = nn.initializers.variance_scaling(scale, 'fan_in', 'truncated_normal')
    return ops.linear(self, 'out', x, width, (None, 'embed'), init=init)


class Class(Conditioner, kw_only=True):
  """A learned vector for each name.

  Attributes:
    source: the names.
  """

  source: factors.Name

  @nn.nowrap
  def embed(self, values, mask, width, dtype):
    table = self._table('table', len(self.source.names), width)
    return ops.take(table, values, dtype)


class Vector(Conditioner, kw_only=True):
  """A given vector, such as a speaker's, projected.

  Attributes:
    source: its size.
  """

  source: factors.Vector

  @nn.nowrap
  def embed(self, values, mask, width, dtype):
    return self._project(values.astype(dtype), width)


class Number(Conditioner, kw_only=True):
  """A number, as cosines and sines of its place within its range, projected.

  Attributes:
    source: its range.
    frequencies: how many; of each a cosine and a sine. They fall from 1000
      radians over the range to a little more than 0.1.
  """

  source: factors.Number
  frequencies: config.Positive = 128

  @nn.nowrap
  def embed(self, values, mask, width, dtype):
    low, high = self.source.low, self.source.high
    place = (values.astype(jnp.float32) - low) / (high - low)
    radians = 1000 * 1e4 ** (-np.arange(self.frequencies) / self.frequencies)
    angles = place[..., None] * radians.astype(np.float32)
    waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return self._project(waves.astype(dtype), width)


class _Encoded(Conditioner):
  """A sequence, embedded and perhaps encoded.

  Attributes:
    encoder: a stack over the sequence, usually of bidirectional attention; its
      width may be another. Without one, `cross` attends to embeddings with
      positions (sines and cosines), `add` and `film` take the mean of a bag.
  """

  encoder: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] | None = (
      None
  )

  @nn.nowrap
  def embed(self, values, mask, width, dtype):
    inner = width if self.encoder is None else self.encoder.width
    x = self.look_up(values, inner, dtype)
    if self.encoder is None:
      if self.how == 'cross':
        x += jnp.asarray(_waves(x.shape[1], inner), dtype)
      return x
    output = self.encoder.transform(x, mask)
    if output.losses:
      raise ValueError('an encoder of conditions has no experts: none learns')
    return self._project(output.y.astype(dtype), width)

  @nn.nowrap
  @abc.abstractmethod
  def look_up(self, values, width, dtype) -> Float[Array, 'B S D']:
    """Embeddings of values that are 0 where masked."""


class Text(_Encoded):
  """A text.

  Attributes:
    source: its ids.
  """

  source: factors.Text = factors.Text()

  @nn.nowrap
  def look_up(self, values, width, dtype):
    # The last is the mark of the end.
    table = self._table('table', self.source.vocabulary + 1, width)
    return ops.take(table, values, dtype)


class Codes(_Encoded, kw_only=True):
  """Frames of codes, such as an audio prompt, embedded by a table of their own.

  Attributes:
    source: their slots.
  """

  source: factors.Codes

  @nn.nowrap
  def look_up(self, values, width, dtype):
    return self._by_slot(self.source.vocabularies, values, width, dtype)


class Aligned(Conditioner, kw_only=True):
  """What is known of each frame, as codes: by a table of each slot's own.

  Attributes:
    source: its slots.
    how: to the frame that it is of.
  """

  source: factors.Aligned = factors.Aligned()
  how: Literal['frames'] = 'frames'

  @nn.nowrap
  def embed(self, values, mask, width, dtype):
    return self._by_slot(self.source.vocabularies, values, width, dtype)


CONDITIONERS = {
    'aligned': Aligned,
    'class': Class,
    'codes': Codes,
    'number': Number,
    'text': Text,
    'vector': Vector,
}


def _waves(length, width):
  """Sines and cosines of positions [length, width] (1706.03762, 3.5)."""
  half = -(-width // 2)
  angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(half) / half)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def fit(
    modules: Mapping[str, Conditioner], backbone: Any, token: bool = False
) -> None:
  """Checks that a backbone takes in what conditions give.

  It may take in more: a `film` or `cross` that callers add to the context, such
  as the time of a diffusion. A stack refuses calls whose context lacks them.

  Args:
    modules: by name.
    backbone: what they act on.
    token: whether the decoder has a position that is the time's.

  Raises:
    ConfigError: if a condition would not act.
  """
  takes = {
      'cross': ('cross', getattr(backbone, 'cross', None) is not None),
      'film': ('adaptive', getattr(backbone, 'adaptive', 'none') != 'none'),
  }
  for name, module in modules.items():
    if (module.how == 'frames') != isinstance(module, Aligned):
      raise config.ConfigError(
          f'decoder.conditions.{name} acts by {module.how!r}: what is aligned'
          " acts by 'frames', and nothing else does"
      )
    if module.how == 'token' and not token:
      raise config.ConfigError(
          f"decoder.conditions.{name} acts by 'token', but the decoder has none:"
          ' one that denoises has, with time_token'
      )
    field, has = takes.get(module.how, ('', True))
    if not has:
      raise config.ConfigError(
          f'decoder.conditions.{name} acts by {module.how!r}, but'
          f' decoder.backbone lacks {field!r}'
      )


def aligned(modules: Mapping[str, Conditioner]) -> bool:
  """Whether a condition is of frames."""
  return any(module.how == 'frames' for module in modules.values())


def positions(modules: Mapping[str, Conditioner]) -> int:
  """How many positions conditions take at most before the first step."""
  return sum(
      module.source.spec[0][0]
      for module in modules.values()
      if module.how == 'prefix'
  )


def context(conditioned: list[tuple[str, Vectors]]) -> dict[str, Array]:
  """What a decoder takes in of conditions.

  Args:
    conditioned: (how, vectors) of each.

  Returns:
    Of these, what is needed: `prefix` [B, P, D] and `prefix_lengths` [B]; `add`
    and `token` [B, D]; `film` [B, C]; `cross` [B, S, D] and `cross_mask` [B, S];
    `frames` [B, S, D], whose last one is of all frames from there on.
  """
  result = {}
  for how, vectors in conditioned:
    if how == 'prefix':
      x, lengths = vectors
      if 'prefix' in result:
        before = result['prefix_lengths']
        x = join(result['prefix'], before, x)
        lengths += before
      result |= {'prefix': x, 'prefix_lengths': lengths}
    elif how == 'cross':
      mask = streaming_base.length_mask(vectors.lengths, vectors.x.shape[1])
      result['cross'] = _append(result.get('cross'), vectors.x)
      result['cross_mask'] = _append(result.get('cross_mask'), mask)
    elif how == 'frames':
      result[how] = _sum(result.get(how), vectors.x)
    elif how == 'film':
      result['film'] = _append(result.get('film'), _mean(vectors))
    else:
      result[how] = result.get(how, 0) + _mean(vectors)
  return result


def join(
    first: Float[Array, 'B P D'],
    lengths: Int[Array, 'B'],
    second: Float[Array, 'B N D'],
) -> Float[Array, 'B P+N D']:
  """The valid positions of each row's first array, then its second array."""
  count = second.shape[1]
  at = jnp.arange(first.shape[1] + count) - lengths[:, None]
  own = jnp.take_along_axis(
      second, jnp.clip(at, 0, count - 1)[..., None], axis=1
  )
  return jnp.where(
      (at < 0)[..., None], streaming_base.pad_time(first, 0, count), own
  )


def part(
    y: Float[Array, 'B M D'], lengths: Int[Array, 'B'], count: int
) -> Float[Array, 'B N D']:
  """The inverse of `join` for its second array of `count` positions."""
  at = lengths[:, None] + jnp.arange(count)
  return jnp.take_along_axis(y, at[..., None], axis=1)


def _sum(before, x):
  """Vectors of frames together, the shorter ones going on with their last."""
  if before is None:
    return x
  size = max(before.shape[1], x.shape[1])
  longer = [
      jnp.pad(y, ((0, 0), (0, size - y.shape[1]), (0, 0)), mode='edge')
      for y in (before, x)
  ]
  return longer[0] + longer[1]


def _append(before, x):
  return x if before is None else jnp.concatenate([before, x], axis=1)


def _mean(vectors):
  mask = streaming_base.length_mask(vectors.lengths, vectors.x.shape[1])
  total = jnp.sum(streaming_base.zero_masked(vectors.x, mask), axis=1)
  return total / vectors.lengths[:, None].astype(total.dtype)
