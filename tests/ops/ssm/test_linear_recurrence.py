"""The linear recurrence in its two forms, its gradient, RG-LRU's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops.ssm import linear_recurrence
from tests.ops import plain_forms

_FAST = {'xla_backend_optimization_level': 0}


def _random(kind, *shape, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=shape)
  if kind == 'complex':
    x = x + 1j * rng.normal(size=shape)
  return x.astype(np.complex64 if kind == 'complex' else np.float32)


@pytest.mark.parametrize('parallel', [False, True])
@pytest.mark.parametrize('kind', ['real', 'complex'])
def test_both_forms_and_their_gradients_are_the_recurrence(kind, parallel):
  arguments = (
      _random(kind, 2, 9, 3),
      _random(kind, 2, 9, 3, seed=1),
      _random(kind, 2, 3, seed=2),
  )
  weights = _random(kind, 2, 9, 3, seed=3), _random(kind, 2, 3, seed=4)

  def run(function):
    def loss(*arguments):
      outputs = function(*arguments)
      terms = [jnp.sum(o * w) for o, w in zip(outputs, weights, strict=True)]
      return jnp.real(sum(terms)), outputs

    graded = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
    return jax.jit(graded, compiler_options=_FAST)(*arguments)

  actual = run(
      lambda a, x, s: linear_recurrence.linear_recurrence(a, x, s, parallel)
  )
  expected = run(plain_forms.linear_recurrence)
  jax.tree.map(
      lambda a, e: np.testing.assert_allclose(
          a, e, rtol=0, atol=1e-5 * np.abs(e).max()
      ),
      actual,
      expected,
  )


def test_one_factor_for_all_rows_and_positions():
  a, x = _random('real', 3), _random('real', 2, 5, 3)
  state = _random('real', 2, 3, seed=1)
  h, last = linear_recurrence.linear_recurrence(a, x, state)
  expected, expected_last = plain_forms.linear_recurrence(
      np.broadcast_to(a, x.shape), x, state
  )
  np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(last, expected_last, rtol=1e-5, atol=1e-6)


def test_rg_lru_coefficients_are_those_of_the_paper():
  gate = np.random.default_rng(0).uniform(size=(2, 6, 4))
  rate = _random('real', 4)
  first = np.zeros((2, 6), bool)
  first[0, 0] = True
  a, gain = linear_recurrence.rg_lru_coefficients(
      gate.astype(np.float32), rate, first
  )
  # Eq. 3: a = sigmoid(Lambda)^(c r), in double precision.
  expected = (1 / (1 + np.exp(rate.astype(np.float64)))) ** (8 * gate)
  np.testing.assert_allclose(a, expected, rtol=1e-5)
  expected = np.sqrt(1 - expected**2)
  expected[0, 0] = 1
  np.testing.assert_allclose(gain, expected, rtol=1e-5)


def test_gain_is_exact_and_its_slope_bounded_where_a_is_near_one():
  first = np.zeros((1, 1), bool)

  def gain(gate):
    return linear_recurrence.rg_lru_coefficients(
        jnp.reshape(gate, (1, 1, 1)), jnp.zeros(1), first
    )[1][0, 0, 0]

  # 1 - a^2 by itself would be 0 in fp32.
  found = gain(1e-9)
  np.testing.assert_allclose(found, np.sqrt(16e-9 * np.log(2)), rtol=1e-5)
  slope = jax.grad(gain)
  # Of sqrt(1 - 2^(-16 gate)) at a gate of 1/2.
  exact = 8 * np.log(2) * 2.0**-8 / np.sqrt(1 - 2.0**-8)
  np.testing.assert_allclose(slope(0.5), exact, rtol=1e-5)
  # A gate that underflows: 2 * 8 log(2) times 1000.
  np.testing.assert_allclose(slope(0.0), 16e3 * np.log(2), rtol=1e-5)
