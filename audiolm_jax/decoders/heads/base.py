"""The Head seam: from a backbone's outputs to the codes of a step."""

import abc
from collections.abc import Callable
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import ops

# choose(logits [B n V], rng, slots [B n]) -> codes [B n]: any n of a step's
# positions, each of them once. A code that a slot does not have is at -inf.
Choose = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class StepLayout:
  """What a decoder's steps may hold.

  Attributes:
    vocabularies: of all K slots.
    groups: for each of the G positions of a step, the slots that it may hold;
      most patterns hold the same one at every step.
  """

  vocabularies: tuple[int, ...]
  groups: tuple[tuple[int, ...], ...]

  @property
  def slots(self) -> tuple[int, ...]:
    """All slots that some position may hold."""
    return tuple(sorted({slot for place in self.groups for slot in place}))


class Head(nn.Module, abc.ABC):
  """A distribution over the codes of a step, given the backbone's output.

  `log_prob`, `logits` and `sample` are the same distribution: what `sample`
  says of given codes is what `log_prob` says of them. `exists` is False for
  positions that hold no frame: their codes are unspecified and must change
  nothing.

  Where embeddings are tied, `table` is the decoder's `Embedding.table`.
  """

  # What `log_prob` is: 'exact', 'bound' or 'none'.
  tag = 'exact'
  # How many leading positions it gives; None for all.
  predicted = None

  @abc.abstractmethod
  def log_prob(
      self,
      h: Float[Array, 'B N D'],
      codes: Int[Array, 'B N G'],
      exists: Bool[Array, 'B N G'],
      slots: Int[np.ndarray, 'N G'],
      step_layout: StepLayout,
      table: ops.Weight | None = None,
  ) -> tuple[Float[Array, 'B N G'], Bool[Array, 'B N G']]:
    """Log-probabilities (nats, fp32) of the codes of every step.

    Args:
      h: the backbone's outputs.
      codes: what the steps hold.
      exists: False for positions that hold no frame.
      slots: the slot of each position, a host constant.
      step_layout: the decoder's; G may be less than its positions.
      table: of embeddings, where they are tied.

    Returns:
      Log-probabilities, unspecified where not scored; the scored positions, all
      that exist but for a head that trains on a part of them.
    """

  @abc.abstractmethod
  def sample(
      self,
      h: Float[Array, 'B D'],
      slots: Int[Array, 'B G'],
      exists: Bool[Array, 'B G'],
      given: Int[Array, 'B G'],
      given_mask: Bool[Array, 'B G'],
      choose: Choose,
      rng: Array,
      step_layout: StepLayout,
      table: ops.Weight | None = None,
  ) -> tuple[Int[Array, 'B G'], Float[Array, 'B G']]:
    """The codes of one step, given ones kept, and their log-probabilities.

    Args:
      h: the backbone's outputs.
      slots: the slot of each position.
      exists: False for positions that hold no frame; what is returned there is
        unspecified.
      given: codes; those where `given_mask` is True are kept.
      given_mask: True where a code is given.
      choose: how a code is drawn; see `Choose`.
      rng: a key.
      step_layout: the decoder's.
      table: of embeddings, where they are tied.
    """

  @abc.abstractmethod
  def logits(
      self,
      h: Float[Array, 'B N D'],
      codes: Int[Array, 'B N G'],
      exists: Bool[Array, 'B N G'],
      slots: Int[np.ndarray, 'N G'],
      step_layout: StepLayout,
      table: ops.Weight | None = None,
  ) -> Float[Array, 'B N G V']:
    """Logits (fp32) of every position, given the codes before it.

    V is that of the largest of the slots: codes that a position's slot does not
    have are at -inf, and so are all of a position that the head does not give.

    Args:
      h: the backbone's outputs.
      codes: what the steps hold.
      exists: False for positions that hold no frame.
      slots: the slot of each position, a host constant.
      step_layout: the decoder's.
      table: of embeddings, where they are tied.
    """

  @abc.abstractmethod
  def initial(
      self,
      codebooks: Float[np.ndarray, 'K V C'],
      projection: Float[np.ndarray, 'C D'],
      step_layout: StepLayout,
      rng: np.random.Generator,
  ) -> dict[str, Any]:
    """The parameters that start from a codec's vectors (`decoders.initial`).

    Args:
      codebooks: of all slots.
      projection: by which the decoder embeds them in its width.
      step_layout: the decoder's.
      rng: of further projections.
    """


def select_log_prob(
    logits: Float[Array, '*b V'], codes: Int[Array, '*b']
) -> Float[Array, '*b']:
  """log softmax(logits)[codes]."""
  chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def pad_vocabulary(
    logits: Float[Array, '*b V'], size: int
) -> Float[Array, '*b size']:
  """-inf for the codes that others have."""
  widths = [(0, 0)] * (logits.ndim - 1) + [(0, size - logits.shape[-1])]
  return jnp.pad(logits, widths, constant_values=-jnp.inf)
