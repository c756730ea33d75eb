"""Heads: from a backbone's outputs to the codes of a step."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import ops


class Independent(nn.Module):
  """One linear classifier a slot; the codes of a step are independent.

  A head has `log_prob` for whole sequences and `sample` for a step; both take
  the vocabularies of all K slots. `tag` says what its log_prob is.
  """

  tag = 'exact'

  @nn.compact
  def _kernel(self, width: int, vocabularies: tuple[int, ...]) -> ops.Weight:
    return ops.weight(
        self,
        'kernel',
        nn.initializers.normal(0.02),
        (len(vocabularies), width, max(vocabularies)),
        ('slots', 'embed', 'vocab'),
    )

  def log_prob(
      self,
      h: Float[Array, 'B N D'],
      codes: Int[Array, 'B N G'],
      slots: Int[np.ndarray, 'N G'],
      vocabularies: tuple[int, ...],
  ) -> Float[Array, 'B N G']:
    """Log-probability (nats, fp32) of every code of every step.

    Args:
      h: the backbone's outputs.
      codes: what the steps hold.
      slots: the slot of each place, a host constant.
      vocabularies: of all K slots.
    """
    kernel = self._kernel(h.shape[-1], vocabularies)
    batch, steps, group = codes.shape
    if (slots == np.arange(len(vocabularies))).all():
      logits = ops.einsum('bnd,gdv->bngv', h, kernel).astype(jnp.float32)
      return select_log_prob(_known(logits, slots, vocabularies), codes)
    # Places are sorted by slot, so that each meets its own matrix only.
    cells = [
        np.flatnonzero(slots.ravel() == slot)
        for slot in range(len(vocabularies))
    ]
    most = max(len(c) for c in cells)
    index = np.stack([np.pad(c, (0, most - len(c))) for c in cells])
    flat = codes.reshape(batch, steps * group)
    logits = ops.einsum('bgmd,gdv->bgmv', h[:, index // group], kernel)
    logits = _known(
        logits.astype(jnp.float32), np.arange(len(cells))[:, None], vocabularies
    )
    log_prob = select_log_prob(logits, flat[:, index])
    inverse = np.zeros(steps * group, int)
    for slot, c in enumerate(cells):
      inverse[c] = slot * most + np.arange(len(c))
    log_prob = log_prob.reshape(batch, -1)[:, inverse]
    return log_prob.reshape(codes.shape)

  def sample(
      self,
      h: Float[Array, 'B D'],
      slots: Int[Array, 'B G'],
      given: Int[Array, 'B G'],
      given_mask: Bool[Array, 'B G'],
      choose: Callable[[Array, Array], Array],
      rng: Array,
      vocabularies: tuple[int, ...],
  ) -> tuple[Int[Array, 'B G'], Float[Array, 'B G']]:
    """The codes of one step, given ones kept, and their log-probabilities.

    Args:
      h: the backbone's outputs.
      slots: the slot of each place.
      given: codes that are known, where
      given_mask: is True.
      choose: `choose(logits [*b V], rng) -> codes [*b]`.
      rng: a key.
      vocabularies: of all K slots.
    """
    logits = ops.einsum(
        'bd,gdv->bgv', h, self._kernel(h.shape[-1], vocabularies)
    )
    logits = logits.astype(jnp.float32)
    if slots.shape[1] < len(vocabularies):
      logits = jnp.take_along_axis(logits, slots[..., None], axis=1)
    logits = _known(logits, slots, vocabularies)
    codes = jnp.where(given_mask, given, choose(logits, rng))
    return codes, select_log_prob(logits, codes)


def select_log_prob(
    logits: Float[Array, '*b V'], codes: Int[Array, '*b']
) -> Float[Array, '*b']:
  """log softmax(logits)[codes]."""
  chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def _known(logits, slots, vocabularies):
  """Logits with the codes that a slot does not have at -inf."""
  if min(vocabularies) == max(vocabularies):
    return logits
  sizes = jnp.array(vocabularies)[slots]
  codes = jnp.arange(max(vocabularies))
  return jnp.where(codes < sizes[..., None], logits, -jnp.inf)
