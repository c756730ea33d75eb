"""Times as vectors: what is done before and after the perceptron."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.decoders import time_embedding
from tests.decoders import small

T = np.array([0.0, 0.3, 1.0], np.float32)
PLAIN = time_embedding.TimeEmbedding(frequencies=3, scale=2.0, span=5.0)


def _run(module, t=T, seed=0, **changes):
  """(what becomes of times, parameters, which may be changed)."""
  params = small.parameters(module, T, 7, seed=seed, method='__call__')
  params = {**params, **changes}
  return np.asarray(module.apply({'params': params}, t, 7)), params


def test_reversed_times_count_from_the_other_end():
  module = PLAIN.clone(parent=None, name=None, reverse=True)
  found, params = _run(module)
  expected = PLAIN.apply({'params': params}, 1 - T, 7)
  np.testing.assert_array_equal(found, expected)
  assert np.abs(found[0] - found[2]).max() > 1e-2


def test_without_biases_there_are_none():
  module = PLAIN.clone(parent=None, name=None, use_bias=False)
  found, params = _run(module)
  assert set(params) == {'inner', 'outer'}
  zeros = {f'{name}_bias': np.zeros(7) for name in params}
  expected = PLAIN.apply({'params': {**params, **zeros}}, T, 7)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('epsilon', [0.0, 0.5])
def test_closing_divides_by_the_deviation_and_keeps_the_mean(epsilon):
  module = PLAIN.clone(
      parent=None, name=None, closing='deviation', closing_epsilon=epsilon
  )
  scale = np.linspace(-1, 2, 7, dtype=np.float32)
  found, params = _run(module, closing_scale=scale)
  y = np.asarray(PLAIN.apply({'params': params}, T, 7), np.float64)
  deviation = np.sqrt(y.var(axis=1, ddof=1, keepdims=True) + epsilon)
  np.testing.assert_allclose(found, scale * y / deviation, rtol=1e-4)
  # At the start its factor is 1.
  variables = module.init(jax.random.key(0), T, 7)
  start = nn.meta.unbox(variables)['params']['closing_scale']
  np.testing.assert_array_equal(start, np.ones(7))


@pytest.mark.parametrize(
    'changes',
    [
        {'turns': 2.0},
        {'closing_epsilon': 0.0},
        {'spacing': 'gaussian', 'scale': 2.0},
        {'spacing': 'gaussian', 'span': 5.0},
    ],
)
def test_what_would_do_nothing_is_refused(changes):
  *_, name = changes
  with pytest.raises(config.ConfigError, match=f'{name} = .* does nothing'):
    time_embedding.TimeEmbedding(**changes)
  if name in ('scale', 'span'):
    del changes['spacing']
    time_embedding.TimeEmbedding(**changes)
