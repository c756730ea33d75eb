"""Choosing codes from logits: temperature, top-k, top-p."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config


@dataclasses.dataclass(frozen=True)
class Sampler:
  """How a code is drawn; static, so that it can be a jit argument.

  The filters act in this order: temperature, top-k, top-p.

  Attributes:
    temperature: logits are divided by it; 0 takes the likeliest code.
    top_k: if set, only the k likeliest codes (and those tied with the k-th).
    top_p: only the smallest set of likeliest codes that holds this much
      probability (1904.09751), and those tied with its last.
  """

  temperature: Annotated[float, config.Range(min=0)] = 1.0
  top_k: Annotated[int, config.Range(min=1)] | None = None
  top_p: Annotated[float, config.Range(min=0, max=1)] = 1.0

  def filter(self, logits: Float[Array, '*b V']) -> Float[Array, '*b V']:
    """Logits of the distribution that is drawn from, -inf where it is 0."""
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
      kept = (before < self.top_p).at[..., 0].set(True)
      least = jnp.min(
          jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True
      )
      logits = jnp.where(logits >= least, logits, -jnp.inf)
    return logits

  def __call__(
      self, logits: Float[Array, '*b V'], rng: Array
  ) -> Int[Array, '*b']:
    """Codes drawn from logits."""
    if not self.temperature:
      return jnp.argmax(logits, axis=-1)
    return jax.random.categorical(rng, self.filter(logits), axis=-1)
