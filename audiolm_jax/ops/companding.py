"""The mu-law curve (ITU-T G.711): amplitudes spread out where it is quiet.

For numpy and JAX arrays; the result is of the same kind.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np


def compress(x: Float[Array, '*n'], mu: int) -> Float[Array, '*n']:
  """sign(x) ln(1 + mu |x|) / ln(1 + mu): from [-1, 1] to [-1, 1]."""
  xp = np if isinstance(x, np.ndarray) else jnp
  return xp.sign(x) * xp.log1p(mu * xp.abs(x)) / math.log1p(mu)


def expand(y: Float[Array, '*n'], mu: int) -> Float[Array, '*n']:
  """The inverse of `compress`."""
  xp = np if isinstance(y, np.ndarray) else jnp
  return xp.sign(y) * xp.expm1(xp.abs(y) * math.log1p(mu)) / mu
