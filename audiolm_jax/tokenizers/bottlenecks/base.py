"""The Bottleneck seam: latents in, tokens and what the decoder sees of them out.

A bottleneck stands between any encoder and any decoder. Its `params` train by
gradients, its `state` (EMA codebooks) by statistics; both are explicit. Rows
are independent, and what stands at masked frames (NaN included) reaches nothing.
Everything is fp32, whatever the encoder computes in.
"""

import abc
from typing import Any

import flax
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.tokenizers import base as tokenizers_base

Variables = dict[str, Any]  # {'params': ..., 'state': ...}


class Quantised(flax.struct.PyTreeNode):
  """What `quantise` returns; N = ceil(F / frames) token frames.

  Attributes:
    latents: [B, F, D] what the decoder sees, zero at masked frames; gradients
      reach the encoder through them.
    losses: name -> [B, F], zero at masked frames; a loss is their mean over the
      valid frames.
    codes: [B, N, K] int32, zero at masked frames, also those of levels that
      quantizer dropout leaves out of `latents`; None if tokens are continuous.
    tokens: [B, F, E] what continuous tokens hold, else None.
    margins: [B, N, K] (second best - best) / (their sum) of the distances, one
      at masked frames; a code may flip under rounding only where its margin, or
      that of a level before it, is small.
    semantic: [B, F, E] the first level's part of the latents, or a map of it,
      which semantic distillation compares; None without levels.
    residuals: what `statistics` needs, without gradients.
  """

  latents: Float[Array, 'B F D']
  losses: dict[str, Float[Array, 'B F']]
  codes: Int[Array, 'B N K'] | None = None
  tokens: Float[Array, 'B F E'] | None = None
  margins: Float[Array, 'B N K'] | None = None
  semantic: Float[Array, 'B F E'] | None = None
  residuals: Any = None


class Bottleneck(abc.ABC):
  """A frozen dataclass whose fields are its configuration."""

  @property
  def frames(self) -> int:
    """Latent frames in a token frame."""
    return 1

  @property
  @abc.abstractmethod
  def loss_weights(self) -> dict[str, float]:
    """The losses that `quantise` gives, with their default factors."""

  @property
  @abc.abstractmethod
  def quantiser(self) -> str:
    """The kind in the DATES taxonomy, for `Dates.quantiser`."""

  @abc.abstractmethod
  def slots(self) -> tuple[tokenizers_base.Slot, ...]:
    """The K codes of a token frame; empty for continuous tokens."""

  def prefixes(self) -> tuple[int, ...]:
    """The numbers of leading slots that `dequantise` can start from."""
    return (len(self.slots()),)

  def check_prefix(self, codes: Int[Array, 'B N k']):
    """Raises ValueError if codes of so many slots cannot be decoded."""
    if codes.shape[-1] not in self.prefixes():
      raise ValueError(
          f'{codes.shape[-1]} codes a frame: expected one of {self.prefixes()}'
      )

  def latent_dimension(self) -> int | None:
    """E of continuous tokens, None for discrete ones."""
    return None

  def output_dimension(self, dimension: int) -> int:
    """Width of what the decoder sees, under an encoder of width D."""
    return dimension

  def semantic_dimension(self, dimension: int) -> int:
    """Width of `Quantised.semantic`, under an encoder of width D."""
    return self.output_dimension(dimension)

  @abc.abstractmethod
  def init(self, rng: Array, dimension: int) -> Variables:
    """{'params', 'state'} under an encoder of width D; params are boxed."""

  @abc.abstractmethod
  def quantise(
      self,
      variables: Variables,
      x: Float[Array, 'B F D'],
      mask: Bool[Array, 'B F'],
      *,
      levels: Int[Array, 'B'] | None = None,
      rng: Array | None = None,
  ) -> Quantised:
    """Tokens of the encoder's output.

    Args:
      variables: {'params', 'state'}.
      x: encoder output.
      mask: valid frames, a prefix of each row.
      levels: codebooks each row uses, from `levels`; default all.
      rng: for what is random (a VAE's sample); default: deterministic.
    """

  @abc.abstractmethod
  def dequantise(
      self, variables: Variables, tokens: Array
  ) -> Float[Array, 'B F D']:
    """What the decoder sees of the first of the codes, or of latents.

    Args:
      variables: {'params', 'state'}.
      tokens: codes [B, N, k], k one of `prefixes()`; or latents [B, F, E].

    Returns:
      [B, N * frames, D].
    """

  def levels(self, rng: Array, rows: int) -> Int[Array, 'B'] | None:
    """Quantizer dropout: codebooks that each row uses; None without levels."""
    del rng, rows
    return None

  def statistics(
      self, quantised: Quantised, mask: Bool[Array, 'B F'], rng: Array
  ) -> Any:
    """Sums over the valid frames, which add over microbatches and devices."""
    del quantised, mask, rng
    return {}

  def update(self, state: Any, statistics: Any, rng: Array) -> Any:
    """The state after an optimizer step."""
    del statistics, rng
    return state

  def metrics(self, state: Any) -> dict[str, Float[Array, '']]:
    """Of the state: how much of the codebooks is in use."""
    del state
    return {}

  def code_vectors(self, variables: Variables) -> Float[Array, 'K V E'] | None:
    """The vectors that each slot's codes stand for, if there are such."""
    del variables
    return None
