"""Draws of codes, each from a key of its own."""

import functools

import jax
from jaxtyping import Array, Float, Int, Key


def categorical(
    keys: Key[Array, '*b'], logits: Float[Array, '... V']
) -> Int[Array, '...']:
  """Codes with probabilities softmax(logits), rare ones too.

  JAX's default adds Gumbel noise made of 23 random bits, which ends near 16:
  next to a likely code, one of probability 3e-8 is drawn ten times too seldom,
  and one of 1e-8 never (2409.02908). mode='high' has the tail that Gumbel noise
  should have down to 1e-14, and takes 1.4 times as long.

  Args:
    keys: one for each draw, or for several codes [*c] that are drawn at once.
    logits: [*b, *c, V], unnormalised log-probabilities; -inf for codes that
      there are not.
  """
  draw = functools.partial(jax.random.categorical, mode='high')
  flat = logits.reshape(-1, *logits.shape[keys.ndim :])
  return jax.vmap(draw)(keys.reshape(-1), flat).reshape(logits.shape[:-1])
