"""Causal layers that mirror a start go step by step once they have enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import streaming

# Width, stride, dilation; strides whose ends are mirrored too.
CONVS = [(7, 1, 1, 1), (3, 1, 4, 2), (8, 4, 1, 1), (5, 3, 1, 2)]
QUICK = {'xla_backend_optimization_level': 0}


@pytest.mark.parametrize('width, stride, dilation, blocks', CONVS)
def test_steps_equal_the_whole(width, stride, dilation, blocks):
  layer = streaming.Conv(3, width, stride, dilation, padding='reflect')
  before = (width - 1) * dilation + 1 - stride
  assert not layer.steppable
  assert layer.min_step >= before + 1 > layer.min_step - stride
  size = layer.min_step + (blocks - 1) * stride
  total = 4 * size
  # Shorter than the mirror, ends within and at the end of steps and strides.
  lengths = np.array([0, 1, before, size, size + 1, 2 * size + 2, total])
  x = np.random.default_rng(0).standard_normal((len(lengths), total, 2))
  mask = np.arange(total) < lengths[:, None]
  x = np.where(mask[..., None], x, np.nan).astype(np.float32)
  init = jax.jit(layer.init, compiler_options=QUICK)
  variables = init(jax.random.key(0), x, mask)
  whole = jax.jit(layer.apply, compiler_options=QUICK)
  expected, expected_mask = whole(variables, x, mask)
  step = jax.jit(
      lambda *given: layer.apply(*given, method='step'), compiler_options=QUICK
  )
  state = layer.initial_state(len(lengths), jax.ShapeDtypeStruct((2,), x.dtype))
  found = []
  for start in range(0, total, size):
    here = slice(start, start + size)
    y, y_mask, state = step(variables, x[:, here], mask[:, here], state)
    np.testing.assert_array_equal(
        y_mask, expected_mask[:, start // stride : (start + size) // stride]
    )
    found.append(y)
  valid = np.asarray(expected_mask)
  np.testing.assert_allclose(
      np.concatenate(found, axis=1)[valid],
      np.asarray(expected)[valid],
      atol=1e-5,
  )


def test_what_least_step_says():
  conv = streaming.Conv
  assert conv(3, 4, 2).min_step == 2
  assert conv(3, 4, 2, lookahead=1, padding='reflect').min_step is None
  # It would need more of the past than it keeps.
  assert conv(3, 4, 4, padding='reflect').min_step is None
  mirrored = conv(3, 7, padding='reflect')
  assert mirrored.min_step == 7
  serial = streaming.Serial((conv(3, 8, 4), mirrored))
  assert serial.min_step == 28 and not serial.steppable
  assert streaming.Residual(mirrored).min_step == 7
  assert streaming.Serial((conv(3, 8, 4), conv(3, 3))).min_step == 4
  late = streaming.CausalIstft(8, 4, 4)
  assert streaming.Serial((late, mirrored)).min_step is None


def test_a_step_that_is_too_short_is_refused():
  layer = streaming.Conv(3, 7, padding='reflect')
  x, mask = jnp.zeros((1, 6, 2)), jnp.ones((1, 6), bool)
  variables = layer.init(jax.random.key(0), x, mask)
  state = layer.initial_state(1, jax.ShapeDtypeStruct((2,), x.dtype))
  with pytest.raises(ValueError, match='at least 7 positions, got 6'):
    layer.apply(variables, x, mask, state, method='step')
