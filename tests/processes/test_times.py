"""Densities of times, and the times of samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import times as times_lib

DENSITIES = {
    'uniform': times_lib.Uniform(),
    'logit_normal': times_lib.LogitNormal(0.4, 0.8),
    'log_snr_normal': times_lib.LogSnrNormal(-1.2, 2.0),
    'shifted': times_lib.Shifted(times_lib.LogitNormal(0.0, 1.0), 3.0),
}


def test_all_kinds_are_here():
  assert set(DENSITIES) == set(times_lib.DENSITIES)


@pytest.mark.parametrize('process', gaussian.PROCESSES)
@pytest.mark.parametrize('name', DENSITIES)
def test_densities_are_slopes_of_their_quantiles(name, process):
  density, process = DENSITIES[name], gaussian.PROCESSES[process]()
  u = jnp.linspace(0.05, 0.95, 19)
  t = density.quantile(process, u)
  assert (np.diff(t) > 0).all() and (t > 0).all() and (t < 1).all()
  slope = jax.vmap(jax.grad(lambda u: density.quantile(process, u)))(u)
  np.testing.assert_allclose(density.density(process, t), 1 / slope, rtol=2e-3)


def test_quantiles_are_those_of_the_normal_distribution():
  flow = gaussian.RectifiedFlow()
  u = jnp.array([0.1587, 0.5, 0.8413])  # -1, 0 and 1 deviations
  t = DENSITIES['logit_normal'].quantile(flow, u)
  np.testing.assert_allclose(
      np.log(t / (1 - t)), 0.4 + 0.8 * np.array([-1, 0, 1]), atol=1e-3
  )
  t = DENSITIES['log_snr_normal'].quantile(flow, u)
  np.testing.assert_allclose(
      flow.log_snr(t), -1.2 + 2.0 * np.array([1, 0, -1]), atol=1e-3
  )


def test_a_shift_moves_log_snr():
  """By twice its logarithm, for rectified flow."""
  flow, t = gaussian.RectifiedFlow(), np.array([0.2, 0.5, 0.7])
  found = flow.log_snr(times_lib.shifted(t, 3.0))
  np.testing.assert_allclose(found, flow.log_snr(t) - 2 * np.log(3))


def test_stratified_numbers_fill_each_part():
  found = times_lib.stratified(jax.random.key(0), 16)
  np.testing.assert_array_equal(np.floor(found * 16), np.arange(16))
  other = times_lib.stratified(jax.random.key(1), 16)
  assert (found != other).all()


def test_stratified_numbers_never_reach_the_ends(monkeypatch):
  """There weights of a loss are infinite."""
  for part in (0.0, 1 - 2**-24):
    monkeypatch.setattr(
        jax.random, 'uniform', lambda _, shape, p=part: jnp.full(shape, p)
    )
    found = times_lib.stratified(None, 1000)
    assert found.min() > 0 and found.max() < 1


def test_grids():
  times = times_lib.Grid(4).times
  np.testing.assert_allclose(times, [1, 0.75, 0.5, 0.25, 0])
  shifted = times_lib.Grid(4, shift=3.0).times
  np.testing.assert_allclose(shifted, 3 * times / (1 + 2 * times))
  # F5's sway of -1, with data at 1: 1 - cos(pi u / 2).
  sway = times_lib.Grid(4, sway=-1.0).times
  np.testing.assert_allclose(
      1 - sway, 1 - np.cos(np.pi / 2 * (1 - times)), atol=1e-12
  )
  for grid in (shifted, sway, times_lib.Grid(7, 0.5, 1.0).times):
    assert grid[0] == 1 and grid[-1] == 0 and (np.diff(grid) < 0).all()


def test_a_grid_of_log_snr_rises_evenly():
  for process in (gaussian.Cosine(), gaussian.RectifiedFlow()):
    grid = times_lib.SnrGrid(5, most=100.0, least=0.25, process=process)
    found = times_lib.falling(grid.times, end=0.0)
    assert len(found) == 6 and found[0] < 1
    a, b = process.scales(found[:-1])
    ratios = b / a
    assert ratios[[0, -1]] == pytest.approx([100, 0.25])
    steps = np.diff(process.log_snr(found[:-1]))
    np.testing.assert_allclose(steps, steps[0])
  # All noise but for 1 / 500 (stable-audio's).
  assert times_lib.SnrGrid().times[0] == pytest.approx(
      2 / np.pi * np.arctan(500)
  )
  with pytest.raises(config.ConfigError, match='less than most'):
    times_lib.SnrGrid(most=0.1)


def test_configs_are_checked():
  built = config.build_kind(
      times_lib.DENSITIES, {'kind': 'shifted', 'base': {'kind': 'logit_normal'}}
  )
  assert built == times_lib.Shifted(times_lib.LogitNormal(), 3.0)
  with pytest.raises(config.ConfigError, match='std'):
    config.build(times_lib.LogitNormal, {'std': 0.0})
  with pytest.raises(config.ConfigError, match='steps'):
    config.build(times_lib.Grid, {'steps': 0})


def test_times_of_a_way_fall_and_have_their_ends():
  assert times_lib.falling([1, 0.5, 0]).dtype == np.float64
  assert times_lib.falling([0.9, 0.1]).tolist() == [0.9, 0.1]
  for wrong in ([1.0], [0.1, 0.9], [1, 1, 0], [1.5, 0], [1, -0.1], [[1, 0]]):
    with pytest.raises(ValueError, match='falling'):
      times_lib.falling(wrong)
  with pytest.raises(
      ValueError, match='expected 0 at the end of data, not 0.1'
  ):
    times_lib.falling([1, 0.1], start=1, end=0)
