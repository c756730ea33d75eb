"""Scales, slopes, targets and their conversions, to what arithmetic allows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.processes import gaussian

PROCESSES = {name: cls() for name, cls in gaussian.PROCESSES.items()}
every_process = pytest.mark.parametrize('name', PROCESSES)
# Away from 0, where the slope of b of one of them is infinite.
TIMES = np.linspace(0.02, 0.98, 25)


def _arrays():
  rng = np.random.default_rng(0)
  x, e = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
  return x, e


@every_process
def test_ends_are_exact(name):
  process = PROCESSES[name]
  for t in (0.0, np.float32(0), jnp.float32(0)):
    assert process.scales(t) == (1, 0)
  a, b = process.scales(1.0)
  assert b == pytest.approx(1, abs=3e-5)
  assert a == (pytest.approx(np.exp(-5.025)) if 'var' in name else 0)
  assert process.log_snr(0.0) == np.inf


@every_process
def test_slopes_are_derivatives(name):
  process, h = PROCESSES[name], 1e-6
  later, sooner = process.scales(TIMES + h), process.scales(TIMES - h)
  for slope, up, down in zip(process.slopes(TIMES), later, sooner, strict=True):
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6)
  slope = process.log_snr(TIMES + h) - process.log_snr(TIMES - h)
  np.testing.assert_allclose(
      process.log_snr_slope(TIMES), slope / (2 * h), rtol=1e-6
  )
  a, b = process.scales(TIMES)
  np.testing.assert_allclose(process.log_snr(TIMES), 2 * np.log(a / b))
  # On the device the same numbers, in fp32.
  for host, device in zip(
      process.scales(TIMES) + process.slopes(TIMES),
      process.scales(jnp.asarray(TIMES)) + process.slopes(jnp.asarray(TIMES)),
      strict=True,
  ):
    assert device.dtype == jnp.float32
    np.testing.assert_allclose(device, host, rtol=2e-5)


def test_scales_are_those_of_the_papers():
  a, b = gaussian.Cosine().scales(TIMES)
  np.testing.assert_allclose(a, np.cos(np.pi * TIMES / 2), rtol=1e-12)
  np.testing.assert_allclose(a**2 + b**2, 1)
  a, b = gaussian.RectifiedFlow().scales(TIMES)
  np.testing.assert_allclose((a, b), (1 - TIMES, TIMES))
  # The integral of the rate .1 + 19.9 t, by a sum.
  fine = np.linspace(0, 0.5, 100_001)
  spent = np.trapezoid(0.1 + 19.9 * fine, fine)
  a, b = gaussian.VariancePreserving().scales(0.5)
  assert a == pytest.approx(np.exp(-spent / 2), rel=1e-8)
  assert a**2 + b**2 == pytest.approx(1)


def test_rectified_flow_is_the_cosine_process_at_another_scale():
  cosine, flow = PROCESSES['cosine'], PROCESSES['rectified_flow']
  s = 2 / np.pi * np.arctan(TIMES / (1 - TIMES))
  np.testing.assert_allclose(cosine.log_snr(s), flow.log_snr(TIMES))


@every_process
def test_times_of_log_snr(name):
  process = PROCESSES[name]
  for t in (TIMES, jnp.asarray(TIMES)):
    found = process.time_of_log_snr(process.log_snr(t))
    np.testing.assert_allclose(found, TIMES, rtol=1e-4)


@pytest.mark.parametrize('times', [0.3, 'rows', 'frames'])
@every_process
def test_every_target_gives_every_other(name, times):
  process, (x, e) = PROCESSES[name], _arrays()
  if times == 'rows':
    times = jnp.array([0.1, 0.5, 0.9])
  elif times == 'frames':
    times = jnp.linspace(0.1, 0.9, 12).reshape(3, 4)
  z = process.corrupt(x, e, times)
  a, b = process.scales(
      np.broadcast_to(np.float64(times), ())
      if np.ndim(times) == 0
      else np.asarray(times)
  )
  a, b = (np.reshape(f, np.shape(f) + (1,) * (3 - np.ndim(f))) for f in (a, b))
  np.testing.assert_allclose(z, a * x + b * e, rtol=1e-5, atol=1e-5)
  kinds = 'xevu'
  targets = {k: process.target(k, x, e, times) for k in kinds}
  np.testing.assert_allclose(targets['v'], a * e - b * x, rtol=1e-5, atol=1e-5)
  for old, new in itertools.product(kinds, kinds):
    found = process.convert(old, new, targets[old], z, times)
    size = np.abs(targets[new]).max()
    np.testing.assert_allclose(found, targets[new], rtol=0, atol=2e-4 * size)


@every_process
def test_velocity_is_how_z_moves(name):
  process, (x, e) = PROCESSES[name], _arrays()
  t = jnp.array([0.1, 0.5, 0.9])
  u = jax.jvp(lambda t: process.corrupt(x, e, t), (t,), (jnp.ones(3),))[1]
  np.testing.assert_allclose(
      process.target('u', x, e, t), u, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize('kind', 'xevu')
@every_process
def test_errors_of_predictions_are_in_units_of_those_of_x(name, kind):
  process, (x, e) = PROCESSES[name], _arrays()
  t = jnp.array([0.2, 0.5, 0.8])
  z = process.corrupt(x, e, t)
  true = process.target(kind, x, e, t)
  wrong = process.convert('x', kind, x + 0.5, z, t)
  found = jnp.mean((wrong - true) ** 2, (1, 2)) / 0.25
  np.testing.assert_allclose(process.error_factor(kind, t), found, rtol=1e-3)


def test_predictions_that_leave_something_open_are_refused():
  flow, vp = PROCESSES['rectified_flow'], PROCESSES['variance_preserving']
  flow.check('e', np.array([0.9, 0.0]))
  with pytest.raises(ValueError, match=r"RectifiedFlow at t = 1: .*'e'"):
    flow.check('e', np.array([1.0, 0.5]))
  with pytest.raises(ValueError, match=r"at t = 0: .*'x'"):
    flow.check('x', np.array([0.5, 0.0]))
  # Some data is left.
  vp.check('e', np.array([1.0, 0.5]))
  for kind in ('v', 'u'):
    flow.check(kind, np.array([1.0, 0.0]), slopes=True)
  with pytest.raises(ValueError, match='slopes'):
    vp.check('v', np.array([0.5, 0.0]), slopes=True)
  with pytest.raises(config.ConfigError, match='more than least_rate = 3'):
    gaussian.VariancePreserving(least_rate=3.0, most_rate=2.0)
