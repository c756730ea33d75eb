"""The hand-written gradient of the recurrence is that of its forward pass."""

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax.ops import recurrence
from tests.ops import plain_forms


def test_lstm_and_its_gradient_with_masks_anywhere():
  rng = np.random.default_rng(0)

  def random(*shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))

  arguments = random(5, 2, 12), random(3, 12), (random(2, 3), random(2, 3))
  mask = jnp.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool).T
  factors = random(5, 2, 3), (random(2, 3), random(2, 3))

  def loss(function):
    def scalar(inputs, kernel, state):
      out = function(inputs, kernel, state, mask)
      terms = jax.tree.map(lambda y, w: jnp.sum(y * w), out, factors)
      return sum(jax.tree.leaves(terms)), out

    return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))

  actual = loss(recurrence.lstm)(*arguments)
  expected = loss(plain_forms.lstm)(*arguments)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      actual,
      expected,
  )
