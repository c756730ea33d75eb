"""What is known of arrays while they are traced, and when they are there."""

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax.ops import concrete


def test_arrays_that_are_there_are_read_and_traced_ones_are_none():
  for x in (np.arange(3), jnp.arange(3), [0, 1, 2]):
    np.testing.assert_array_equal(concrete.on_host(x), [0, 1, 2])
  assert concrete.on_host(None) is None
  seen = []
  jax.jit(lambda x: seen.append(concrete.on_host(x)))(jnp.arange(3))
  assert seen == [None]
