"""S4D's convolution, scan and steps against sums in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops.ssm import s4d

_FAST = {'xla_backend_optimization_level': 0}
_B, _T, _D, _N = 3, 23, 4, 3


def _parameters():
  rng = np.random.default_rng(0)
  c = rng.normal(size=(_D, _N)) + 1j * rng.normal(size=(_D, _N))
  return {
      'log_dt': rng.uniform(np.log(1e-2), np.log(0.5), _D).astype(np.float32),
      'log_decay': rng.normal(size=(_D, _N)).astype(np.float32),
      'frequency': (np.pi * np.arange(_N) + np.zeros((_D, 1))).astype(
          np.float32
      ),
      'c': c.astype(np.complex64),
  }


def _exact(log_dt, log_decay, frequency, c):
  """(exp(dt A), w) in double precision."""
  a = -np.exp(log_decay.astype(np.float64)) + 1j * frequency
  kept = np.exp(a * np.exp(log_dt.astype(np.float64))[:, None])
  return kept, c * (kept - 1) / a


def _inputs():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(_B, _T, _D))
  state = rng.normal(size=(_B, _D, _N)) + 1j * rng.normal(size=(_B, _D, _N))
  lengths = np.array([_T, 9, 0])
  x[np.arange(_T) >= lengths[:, None]] = 0
  return x.astype(np.float32), lengths, state.astype(np.complex64)


def _plain(x, lengths, state):
  """Position by position, in double precision."""
  kept, w = _exact(**_parameters())
  y, state = np.zeros(x.shape), state.astype(np.complex128)
  for row, length in enumerate(lengths):
    s = state[row]
    for t in range(length):
      s = kept * s + x[row, t][:, None]
      y[row, t] = 2 * (w * s).sum(-1).real
    state[row] = s
  return y, state


def _close(actual, expected):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('size', [1, 2, 50, 300])
def test_kernel_is_a_sum_of_powers(size):
  parameters = _parameters()
  kept, w = _exact(**parameters)
  powers = kept[..., None] ** np.arange(size)
  expected = 2 * (w[..., None] * powers).sum(1).real

  def run(parameters):
    return s4d.kernel(s4d.discretise(**parameters), size)

  _close(jax.jit(run, compiler_options=_FAST)(parameters), expected)


@pytest.mark.parametrize('form', [s4d.convolve, s4d.scan])
def test_whole_forms_are_the_recurrence(form):
  x, lengths, state = _inputs()
  expected, expected_state = _plain(x, lengths, state)

  def run(parameters, *arguments):
    return form(s4d.discretise(**parameters), *arguments)

  run = jax.jit(run, compiler_options=_FAST)
  y, last = run(_parameters(), x, lengths, state)
  valid = np.arange(_T) < lengths[:, None]
  _close(np.asarray(y)[valid], expected[valid])
  _close(last, expected_state)


def test_no_state_is_one_of_zeros():
  x, lengths, state = _inputs()

  def run(parameters, *state):
    model = s4d.discretise(**parameters)
    return s4d.convolve(model, x, lengths, *state)

  run = jax.jit(run, compiler_options=_FAST)
  expected = run(_parameters(), 0 * state)
  for a, e in zip(run(_parameters()), expected, strict=True):
    _close(a, e)


def test_steps_are_the_recurrence():
  x, _, state = _inputs()
  expected, expected_state = _plain(x, [_T] * _B, state)
  model = s4d.discretise(**_parameters())
  step = jax.jit(s4d.step, compiler_options=_FAST)
  outputs = []
  for t in range(_T):
    y, state = step(model, x[:, t], state)
    outputs.append(y)
  _close(np.stack(outputs, 1), expected)
  _close(state, expected_state)


def test_gradients_of_convolution_and_scan_agree():
  x, lengths, state = _inputs()
  valid = (np.arange(_T) < lengths[:, None])[..., None]
  weights = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)

  def gradient(form):
    def loss(parameters, x, state):
      x = jnp.where(valid, x, 0)
      y, last = form(s4d.discretise(**parameters), x, lengths, state)
      return jnp.sum(jnp.where(valid, y * weights, 0)) + jnp.sum(last).real

    graded = jax.grad(loss, (0, 1, 2))
    return jax.jit(graded, compiler_options=_FAST)(_parameters(), x, state)

  jax.tree.map(_close, gradient(s4d.convolve), gradient(s4d.scan))


def test_hold_is_exact_where_a_step_is_short():
  parameters = _parameters()
  parameters['log_dt'] = np.full(_D, np.log(1e-6), np.float32)
  parameters['log_decay'] -= 3
  _, w = _exact(**parameters)
  found = s4d.discretise(**parameters).w
  np.testing.assert_allclose(found, w, rtol=2e-6)
