"""Choosing codes from logits, and codes that end a row."""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from audiolm_jax import config
from audiolm_jax.config import bounds
from audiolm_jax.ops import draws

# Masses of fp32 add up to about this: what is reached within it is reached.
_SLACK = 4e-6


@dataclasses.dataclass(frozen=True)
class Sampler:
  """How a code is drawn; static, so that it can be a jit argument.

  The filters act in this order: repetition, temperature, top-k, top-p, min-p,
  each on what those before have left.

  Attributes:
    temperature: logits are divided by it; 0 takes the likeliest code.
    top_k: if set, only the k likeliest codes (and those tied with the k-th).
    top_p: only the smallest set of likeliest codes that holds this much
      probability (1904.09751), and those tied with its last.
    min_p: only codes at least this share as likely as the likeliest one
      (2407.01082).
    repetition_penalty: logits of codes that were among the last ones of their
      slot are divided by it where positive and multiplied where negative
      (1909.05858, section 4.1, which divides both; so do most libraries).
    repetition_window: how many last codes of a slot count; 0 for none, which
      no penalty goes with.

  Raises:
    ConfigError: for an option that is out of its range or not finite, or a
      penalty without a window, which would do nothing.
  """

  temperature: config.NonNegative = 1.0
  top_k: config.Positive | None = None
  top_p: config.Share = 1.0
  min_p: config.Share = 0.0
  repetition_penalty: Annotated[float, config.Range(min=1e-3)] = 1.0
  repetition_window: config.Count = 0

  def __post_init__(self):
    bounds.check(self)
    if self.repetition_penalty != 1 and not self.repetition_window:
      raise config.ConfigError(
          f'repetition_penalty = {self.repetition_penalty} does nothing with'
          ' repetition_window = 0: say how many last codes count'
      )

  def filter(
      self,
      logits: Float[Array, '*b V'],
      recent: Int[Array, '*b w'] | None = None,
  ) -> Float[Array, '*b V']:
    """Logits of the distribution that is drawn from, -inf where it is 0.

    Args:
      logits: of the model.
      recent: the last codes of the slot, negative where there were fewer.
    """
    logits = self._penalise(logits, recent)
    if self.temperature:
      logits = logits / self.temperature
    if self.top_k is not None and self.top_k < logits.shape[-1]:
      least = jax.lax.top_k(logits, self.top_k)[0][..., -1:]
      logits = jnp.where(logits >= least, logits, -jnp.inf)
    if self.top_p < 1:
      descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
      probability = jax.nn.softmax(descending, axis=-1)
      before = jnp.cumsum(probability, axis=-1) - probability
      # The likeliest code stays even for top_p = 0.
      kept = (before < self.top_p - _SLACK).at[..., 0].set(True)
      least = jnp.min(
          jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True
      )
      logits = jnp.where(logits >= least, logits, -jnp.inf)
    if self.min_p:
      share = math.log(self.min_p) - _SLACK
      least = logits.max(axis=-1, keepdims=True) + share
      logits = jnp.where(logits >= least, logits, -jnp.inf)
    return logits

  def __call__(
      self,
      logits: Float[Array, '*b V'],
      keys: Key[Array, '*b'],
      recent: Int[Array, '*b w'] | None = None,
  ) -> Int[Array, '*b']:
    """Codes drawn from logits.

    Args:
      logits: of the model.
      keys: one for each draw, so that no draw depends on what is drawn beside.
      recent: see `filter`.
    """
    if not self.temperature:
      return jnp.argmax(self._penalise(logits, recent), axis=-1)
    return draws.categorical(keys, self.filter(logits, recent))

  def _penalise(self, logits, recent):
    if recent is None or not recent.shape[-1] or self.repetition_penalty == 1:
      return logits
    codes = jnp.arange(logits.shape[-1])
    seen = (recent[..., None] == codes).any(axis=-2)
    penalty = self.repetition_penalty
    lower = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, lower, logits)


@dataclasses.dataclass(frozen=True)
class Stop:
  """A code that ends its row: the frame that holds it is not part of the row.

  Attributes:
    code: which, or several of which any does.
    slot: of which slot. If the pattern has other slots before it, codes past the
      end may have been drawn by then, and what came after has seen them. None
      for a frame of which every slot holds such a code, as CSM ends its turns
      (none of them given); for patterns whose steps hold whole frames.

  Raises:
    ConfigError: for no code, or one or a slot below 0.
  """

  code: int | tuple[int, ...]
  slot: config.Count | None = 0

  def __post_init__(self):
    if not self.codes or min(*self.codes, self.slot or 0, 0) < 0:
      raise config.ConfigError(f'{self}: expected codes and a slot >= 0')

  @property
  def codes(self) -> tuple[int, ...]:
    """All that end a row."""
    return self.code if isinstance(self.code, tuple) else (self.code,)
