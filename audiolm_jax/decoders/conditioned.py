"""What decoders with conditions share, whatever they do with them."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.streaming import base as streaming_base


class Conditioned(nn.Module):
  """A decoder with the fields `backbone` and `conditions`."""

  def context(
      self, conditions: conditioners.Conditions | None, batch: int
  ) -> dict[str, Array]:
    """What the other methods take as `context`, computed once.

    Args:
      conditions: by name, as their sources prepare them. Those that are not
        given are dropped in all rows, as in training: None for the context of
        unconditional predictions.
      batch: rows.

    Raises:
      ValueError: for a condition that the decoder does not have.
    """
    conditions = conditions or {}
    if not set(conditions) <= set(self.conditions):
      raise ValueError(
          f'conditions {sorted(conditions)}, but the decoder has'
          f' {sorted(self.conditions)}'
      )
    dtype = jnp.dtype(self.backbone.dtype)
    conditioned = []
    for name, module in sorted(self.conditions.items()):
      given = conditions.get(name) or module.source.prepare([None] * batch)
      vectors = module(
          jnp.asarray(given['values']),
          jnp.asarray(given['lengths']),
          self.backbone.width,
          dtype,
      )
      conditioned.append((module.how, vectors))
    return conditioners.context(conditioned)

  @nn.nowrap
  def prepare(
      self, conditions: Mapping[str, Sequence[Any]] | None, batch: int
  ) -> dict[str, factors.Arrays]:
    """Values of conditions as arrays; one that is not given is that of no row.

    Args:
      conditions: by name, a value for each row (None for none), as the
        condition's source takes them.
      batch: rows.

    Raises:
      ValueError: for conditions that the decoder does not have, values for
        another number of rows, or of another kind, size or range.
    """
    conditions = conditions or {}
    if not set(conditions) <= set(self.conditions):
      raise ValueError(
          f'conditions {sorted(conditions)}, but the model has'
          f' {sorted(self.conditions)}'
      )
    prepared = {}
    for name, module in self.conditions.items():
      values = conditions.get(name, [None] * batch)
      if len(values) != batch:
        raise ValueError(f'{name}: {len(values)} values for {batch} rows')
      prepared[name] = module.source.prepare(values)
    return prepared

  @nn.nowrap
  def _no_conditions(self, batch_size):
    """The entries of a batch whose rows have no condition."""
    return factors.flatten(dict(sorted(self.prepare(None, batch_size).items())))

  def _context(self, context, conditions, batch):
    """The context of whole sequences."""
    if context is None and self.conditions:
      return self.context(conditions, batch)
    if conditions:
      raise ValueError('conditions beside a context, or of a decoder without')
    return context


def add(
    x: Float[Array, 'B N D'],
    context: streaming_base.Context,
    frames: Int[Array, '*B N'] | None = None,
) -> Float[Array, 'B N D']:
  """x, and what conditions add to every position, and to its frame.

  Args:
    x: inputs.
    context: what `context` gives.
    frames: of each position, from 0, those past the last one too; None for its
      own number.
  """
  if context is None:
    return x
  if 'frames' in context:
    known = context['frames']
    frames = jnp.arange(x.shape[1]) if frames is None else frames
    frames = jnp.broadcast_to(frames, x.shape[:2])
    index = jnp.clip(frames, 0, known.shape[1] - 1)[..., None]
    x += jnp.take_along_axis(known, index, axis=1).astype(x.dtype)
  if 'add' in context:
    x += context['add'][:, None].astype(x.dtype)
  return x


def join(
    x: Float[Array, 'B N D'],
    mask: Bool[Array, 'B N'],
    context: streaming_base.Context,
    frames: Int[Array, '*B N'] | None = None,
) -> tuple[Float[Array, 'B M D'], Bool[Array, 'B M']]:
  """Inputs and their mask, with what conditions add (`add`) and put before them."""
  x = add(x, context, frames)
  if context is None or 'prefix' not in context:
    return x, mask
  check_film(context)
  prefix, lengths = context['prefix'], context['prefix_lengths']
  count = lengths + jnp.sum(mask, axis=1)
  x = conditioners.join(prefix, lengths, x)
  return x, streaming_base.length_mask(count, x.shape[1])


def own(
    y: Float[Array, 'B M D'], count: Int, context: streaming_base.Context
) -> Float[Array, 'B N D']:
  """The inverse of `join`: the outputs of the `count` inputs."""
  if context is None or 'prefix' not in context:
    return y
  return conditioners.part(y, context['prefix_lengths'], count)


def check_film(context: dict[str, Any]) -> None:
  """Refuses film by position: a prefix stands elsewhere in each row.

  Raises:
    ValueError: for a context['film'] that is not one vector a row.
  """
  if np.ndim(context.get('film', 0)) > 2:
    raise ValueError(
        f"context['film'] has shape {context['film'].shape}, expected [B, C]:"
        ' beside conditions that are a prefix it is one vector a row'
    )
