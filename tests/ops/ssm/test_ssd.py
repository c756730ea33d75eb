"""SSD's matrix form, its step and its gradient against a plain recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops.ssm import ssd

_FAST = {'xla_backend_optimization_level': 0}
# Two groups of B and C, three heads each.
_B, _T, _H, _P, _G, _N = 2, 13, 6, 3, 2, 4


def _inputs(time=_T, seed=0):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  return {
      'x': normal(_B, time, _H, _P),
      'dt': np.abs(normal(_B, time, _H)),
      'a': -np.abs(normal(_H)),
      'b': normal(_B, time, _G, _N),
      'c': normal(_B, time, _G, _N),
      'state': normal(_B, _H, _P, _N),
  }


def _plain(x, dt, a, b, c, state):
  """The recurrence, position by position and head by head."""
  batch, time, heads, _ = x.shape
  shared = heads // b.shape[2]
  y = np.zeros_like(x)
  state = np.array(state)
  for i in range(batch):
    for h in range(heads):
      s, g = state[i, h], h // shared
      for t in range(time):
        decay = np.exp(dt[i, t, h] * a[h])
        s = decay * s + dt[i, t, h] * np.outer(x[i, t, h], b[i, t, g])
        y[i, t, h] = s @ c[i, t, g]
      state[i, h] = s
  return y, state


def _close(actual, expected, tolerance=1e-5):
  for a, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())


# Chunks that divide the length, that do not, of one position, of all.
@pytest.mark.parametrize('chunk', [1, 4, 5, 13, 64])
def test_matrix_form_is_the_recurrence(chunk):
  inputs = _inputs()
  expected = _plain(**{k: v.astype(np.float64) for k, v in inputs.items()})
  run = jax.jit(ssd.ssd, static_argnames='chunk', compiler_options=_FAST)
  _close(run(**inputs, chunk=chunk), expected)


def test_steps_are_the_recurrence():
  inputs = _inputs()
  expected = _plain(**inputs)
  step = jax.jit(ssd.ssd_step, compiler_options=_FAST)
  outputs, state = [], inputs['state']
  for t in range(_T):
    now = [inputs[name][:, t] for name in ('x', 'dt', 'b', 'c')]
    y, state = step(*now[:2], inputs['a'], *now[2:], state)
    outputs.append(y)
  _close((np.stack(outputs, 1), state), expected)


def test_gradients_of_matrix_form_and_steps_agree():
  inputs = _inputs()
  weights = _inputs(seed=1)['x'], _inputs(seed=1)['state']

  def loss(chunked):
    def scalar(inputs):
      if chunked:
        outputs = ssd.ssd(**inputs, chunk=5)
      else:

        def step(state, now):
          y, state = ssd.ssd_step(
              now['x'], now['dt'], inputs['a'], now['b'], now['c'], state
          )
          return state, y

        moving = {
            k: jnp.swapaxes(inputs[k], 0, 1) for k in ('x', 'dt', 'b', 'c')
        }
        state, y = jax.lax.scan(step, inputs['state'], moving)
        outputs = jnp.swapaxes(y, 0, 1), state
      terms = [jnp.sum(o * w) for o, w in zip(outputs, weights, strict=True)]
      return sum(terms)

    return jax.jit(jax.grad(scalar), compiler_options=_FAST)(inputs)

  actual, expected = loss(True), loss(False)
  for name, want in expected.items():
    scale = np.abs(want).max()
    assert scale > 0.1, name
    np.testing.assert_allclose(
        actual[name], want, rtol=0, atol=1e-5 * scale, err_msg=name
    )


@pytest.mark.parametrize('time', [1, 7])
def test_no_step_leaves_the_state_untouched(time):
  inputs = _inputs(time)
  inputs['dt'] = np.zeros_like(inputs['dt'])
  run = jax.jit(ssd.ssd, static_argnames='chunk', compiler_options=_FAST)
  _, state = run(**inputs, chunk=4)
  np.testing.assert_array_equal(state, inputs['state'])


def test_a_state_kept_after_it_was_wiped_out_is_exact():
  # Decays of exp(-100) at the start of the chunk, then none to speak of.
  x = np.full(64, -1e-3, np.float32)
  x[:30] = -100 - np.arange(30) / 7
  total, between = jax.jit(ssd.segment_sums)(x)
  exact = np.cumsum(x.astype(np.float64))
  np.testing.assert_allclose(total, exact, rtol=1e-6)
  exact = exact[:, None] - exact[None]
  rows, columns = np.tril_indices(64)
  np.testing.assert_allclose(
      between[rows, columns], exact[rows, columns], rtol=1e-6, atol=1e-9
  )
  assert np.isneginf(between[np.triu_indices(64, 1)]).all()
  plain = total[rows] - total[columns]
  # What the compensation is for.
  assert np.abs(plain - exact[rows, columns]).max() > 1e-4
