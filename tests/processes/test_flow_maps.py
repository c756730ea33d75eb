"""Flow maps against the closed forms of a Gaussian: no network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from tests.processes import known

MEAN, STD = 0.7, 0.4
MAP = known.mean_velocity(MEAN, STD)
VELOCITY = known.normal(known.FLOW, 'u', MEAN, STD).velocity


def _points():
  """z [5, 2, 3] and times [5], s < t, two of them at an end."""
  z = np.random.default_rng(0).normal(size=(5, 2, 3))
  t = np.array([1.0, 0.9, 0.6, 0.35, 0.2])
  s = np.array([0.3, 0.1, 0.5, 0.05, 0.0])
  return tuple(jnp.asarray(x, jnp.float32) for x in (z, t, s))


def _errors(u):
  """Of a map, all losses, each with the marginal velocity or exact points."""
  z, t, s = _points()
  v, middle = VELOCITY(z, t), (t + s) / 2
  moved = jnp.stack(
      [
          known.flow_map(row, *times, MEAN, STD)
          for row, *times in zip(
              z, np.asarray(t), np.asarray(middle), strict=True
          )
      ]
  )
  return {
      'diagonal': flow_maps.diagonal_errors(u, z, t, v),
      'mean flow': flow_maps.mean_flow_errors(u, z, t, s, v),
      'lagrangian': flow_maps.lagrangian_errors(u, z, t, s),
      'teacher': flow_maps.lagrangian_errors(u, z, t, s, VELOCITY),
      'consistency': flow_maps.consistency_errors(u, z, t, moved, middle, s),
  }


def test_the_true_map_jumps_as_the_flow_goes():
  z, t, s = _points()
  found = flow_maps.jump(MAP, z, t, s)
  for row in range(len(z)):
    exact = known.flow_map(z[row], float(t[row]), float(s[row]), MEAN, STD)
    np.testing.assert_allclose(found[row], exact, rtol=1e-5, atol=1e-6)


def test_on_the_diagonal_the_true_map_is_the_velocity():
  z, t, _ = _points()
  np.testing.assert_allclose(MAP(z, t, t), VELOCITY(z, t), rtol=1e-5, atol=1e-6)


def test_all_losses_of_the_true_map_are_zero():
  for name, errors in _errors(MAP).items():
    assert errors.shape == (5, 2), name
    assert np.max(errors) < 1e-10, name


@pytest.mark.parametrize(
    ('wrong', 'blind'),
    [
        (lambda z, t, s: -MAP(z, t, s), ()),
        (lambda z, t, s: MAP(z, s, t), ('diagonal',)),
        # The velocity itself, with which sampling is Euler's.
        (lambda z, t, s: VELOCITY(z, t), ('diagonal',)),
        (lambda z, t, s: MAP(z, t, (s + t) / 2), ('diagonal',)),
        (lambda z, t, s: MAP(z, 1 - t, 1 - s), ()),
        # Other flows, consistent with themselves: of papers with data at 1 as
        # it stands there, and of other data.
        (lambda z, t, s: -MAP(z, 1 - t, 1 - s), ('lagrangian',)),
        (known.mean_velocity(MEAN, 0.8), ('lagrangian',)),
        (known.mean_velocity(0.0, STD), ('lagrangian',)),
    ],
    ids=['sign', 'swapped', 'euler', 'half', 'mirrored', 'at 1', 'std', 'mean'],
)
def test_losses_of_a_wrong_map_are_not(wrong, blind):
  for name, errors in _errors(wrong).items():
    assert (np.mean(errors) > 1e-3) == (name not in blind), name


def _moving(theta):
  """Maps through the true one, none of whose parts is zero."""

  def u(z, t, s):
    a, b = (jnp.expand_dims(x, (1, 2)) for x in (t, s))
    return MAP(z, t, s) + theta * (jnp.sin(2 * z) * (1 + a) + b**2 + a * b)

  return u


def _on_the_diagonal(u, z, t):
  return u(z, t, t)


def _total(function, p):
  return function(p).sum()


def _difference(function, at, by):
  """The derivative along `by`, in double precision."""
  step = 1e-5
  return (function(at + step * by) - function(at - step * by)) / (2 * step)


def test_mean_flow_by_finite_differences():
  with jax.enable_x64(True):
    z, t, s = (x.astype(jnp.float64) for x in _points())
    v, u = VELOCITY(z, t) + 0.3, _moving(0.5)
    along = _difference(
        lambda h: u(z + h * v, t + h, s), jnp.zeros(()), jnp.ones(())
    )
    target = v - (t - s)[:, None, None] * along
    expected = jnp.mean((u(z, t, s) - target) ** 2, -1)
    found = flow_maps.mean_flow_errors(u, z, t, s, v)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # No gradient goes through the target.
    gradient = jax.grad(
        lambda p: flow_maps.mean_flow_errors(_moving(p), z, t, s, v).sum()
    )(0.5)
    only = _difference(
        lambda p: jnp.mean((_moving(p)(z, t, s) - target) ** 2, -1).sum(),
        jnp.asarray(0.5),
        jnp.ones(()),
    )
    np.testing.assert_allclose(gradient, only, rtol=1e-6)
    # Nor to what the velocity was computed with.
    of_v = jax.grad(
        lambda v: flow_maps.mean_flow_errors(u, z, t, s, v).sum()
        + flow_maps.diagonal_errors(u, z, t, v).sum()
    )(v)
    np.testing.assert_array_equal(of_v, 0)


@pytest.mark.parametrize('case', ['target', 'none', 'weights'])
def test_the_lagrangian_by_finite_differences(case):
  with jax.enable_x64(True):
    z, t, s = (x.astype(jnp.float64) for x in _points())

    def residual(p, p_of_x, p_of_v):
      """Of a map of p; what is stopped has its own, which does not move."""
      along = _difference(
          lambda h: flow_maps.jump(_moving(p), z, t, s + h),
          jnp.zeros(()),
          jnp.ones(()),
      )
      x = flow_maps.jump(_moving(p_of_x), z, t, s)
      return jnp.mean((along - _moving(p_of_v)(x, s, s)) ** 2, -1)

    def loss(p):
      field, stop = None, 'target' if case == 'target' else 'none'
      if case == 'weights':
        still = _moving(jax.lax.stop_gradient(p))
        field = functools.partial(_on_the_diagonal, still)
      return flow_maps.lagrangian_errors(_moving(p), z, t, s, field, stop)

    here = jnp.asarray(0.5)
    np.testing.assert_allclose(
        loss(here), residual(here, here, here), rtol=1e-6
    )
    moves = {
        'target': lambda p: residual(p, here, here),
        'none': lambda p: residual(p, p, p),
        'weights': lambda p: residual(p, p, here),
    }
    expected = {
        name: _difference(functools.partial(_total, move), here, jnp.ones(()))
        for name, move in moves.items()
    }
    found = jax.grad(lambda p: loss(p).sum())(here)
    for name, value in expected.items():
      assert (name == case) == np.allclose(found, value, rtol=1e-6), name


def test_consistency_moves_the_longer_jump_only():
  z, t, s = _points()
  middle = (t + s) / 2
  moved = z - 0.1
  ahead = flow_maps.jump(_moving(0.5), moved, middle, s)

  def only(p):
    return jnp.mean((flow_maps.jump(_moving(p), z, t, s) - ahead) ** 2, -1)

  def loss(p):
    return flow_maps.consistency_errors(_moving(p), z, t, moved, middle, s)

  np.testing.assert_allclose(loss(0.5), only(0.5), rtol=1e-6)
  found, expected = (
      jax.grad(functools.partial(_total, f))(0.5) for f in (loss, only)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_times_of_rows_are_those_of_all_their_frames():
  z, t, s = _points()
  of_frames = [jnp.broadcast_to(x[:, None], z.shape[:2]) for x in (t, s)]
  for loss in (
      functools.partial(flow_maps.mean_flow_errors, v=VELOCITY(z, t)),
      flow_maps.lagrangian_errors,
  ):
    u = known.mean_velocity(0.1, 0.9)
    every, flat = loss(u, z, *of_frames), [x.reshape(-1) for x in of_frames]
    np.testing.assert_allclose(loss(u, z, t, s), every, rtol=1e-5)
    if loss is flow_maps.lagrangian_errors:
      found = loss(u, z.reshape(-1, 3), *flat)
      np.testing.assert_allclose(found, every.reshape(-1), rtol=1e-5)


def test_adaptive_errors():
  errors = jnp.array([0.0, 1e-3, 1.0, 400.0])
  np.testing.assert_array_equal(flow_maps.adaptive(errors, power=0.0), errors)
  found = flow_maps.adaptive(errors, 1e-3, 1.0)
  np.testing.assert_allclose(found, errors / (errors + 1e-3), rtol=1e-6)
  # The factor is a constant: at power 1 the gradient is that of the logarithm.
  gradient = jax.grad(lambda e: flow_maps.adaptive(e, 1e-3, 1.0).sum())(errors)
  np.testing.assert_allclose(gradient, 1 / (errors + 1e-3), rtol=1e-6)


def test_pairs_of_times():
  density = times_lib.LogitNormal(-0.4, 1.0)
  draw = functools.partial(
      flow_maps.time_pairs, jax.random.key(0), known.FLOW, density, 4000
  )
  t, s = draw()
  assert (s < t).all() and (0 < s).all() and (t < 1).all()
  # The larger and the smaller of two draws that are independent of each other.
  order = [density.quantile(known.FLOW, jnp.float32(p)) for p in (0.25, 0.8)]
  for point, share in zip(order, (0.25, 0.8), strict=True):
    assert np.mean(t < point) == pytest.approx(share**2, abs=0.02)
    assert np.mean(s < point) == pytest.approx(1 - (1 - share) ** 2, abs=0.02)
  same_t, same_s = draw(diagonal=0.75)
  np.testing.assert_array_equal(same_t, t)
  where = same_s == same_t
  assert np.mean(where) == pytest.approx(0.75, abs=0.03)
  np.testing.assert_array_equal(same_s[~where], s[~where])
  assert (draw(diagonal=1.0)[1] == t).all()


@pytest.mark.parametrize('steps', [1, 2, 3, 7])
def test_jumps_of_the_true_map_are_exact(steps):
  z, _, _ = _points()
  found = flow_maps.sample(
      flow_maps.Jumps(),
      MAP,
      known.FLOW,
      z,
      times_lib.Grid(steps, shift=2).times,
  )
  exact = known.flow_map(z, 1.0, 0.0, MEAN, STD)
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
  # Other ends.
  times = np.linspace(0.9, 0.2, steps + 1)
  found = flow_maps.sample(flow_maps.Jumps(), MAP, known.FLOW, z, times)
  exact = known.flow_map(z, 0.9, 0.2, MEAN, STD)
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('noise', [0.3, 1.0])
@pytest.mark.parametrize('end', [0.0, 0.4])
def test_noise_between_jumps_keeps_the_distribution(noise, end):
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(4))
  z = noise_lib.normal(noise_lib.fold(keys, 9), (5000, 2))
  times = np.linspace(1, end, 4)
  jumps = flow_maps.Jumps(noise)
  found = flow_maps.sample(jumps, MAP, known.FLOW, z, times, keys)
  still = flow_maps.sample(flow_maps.Jumps(), MAP, known.FLOW, z, times)
  assert found.mean() == pytest.approx((1 - end) * MEAN, abs=0.01)
  std = np.hypot((1 - end) * STD, end)
  assert found.std() == pytest.approx(std, rel=0.02)
  # Another draw.
  assert np.corrcoef(found.ravel(), still.ravel())[0, 1] < 0.99


def test_full_noise_is_data_and_noise_anew():
  z, _, _ = _points()
  keys = noise_lib.row_keys(jax.random.key(2), jnp.arange(len(z)))
  times = np.array([1.0, 0.4, 0.0])
  found = flow_maps.sample(
      flow_maps.Jumps(1.0), MAP, known.FLOW, z, times, keys, start=3
  )
  fresh = noise_lib.normal(noise_lib.fold(keys, 0), z.shape[1:], 3)
  again = 0.6 * known.flow_map(z, 1.0, 0.0, MEAN, STD) + 0.4 * fresh
  expected = known.flow_map(again, 0.4, 0.0, MEAN, STD)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_noise_between_jumps_goes_by_row_and_frame():
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(3))
  z = noise_lib.normal(noise_lib.fold(keys, 9), (6, 2))
  run = functools.partial(
      flow_maps.sample,
      flow_maps.Jumps(0.5),
      MAP,
      known.FLOW,
      times=np.linspace(1, 0, 4),
  )
  whole = run(z=z, keys=keys)
  np.testing.assert_allclose(
      run(z=z[1:2], keys=keys[1:2]), whole[1:2], rtol=1e-6
  )
  part = run(z=z[:, 2:5], keys=keys, start=2)
  np.testing.assert_allclose(part, whole[:, 2:5], rtol=1e-6)
  assert not np.allclose(run(z=z[:, 2:5], keys=keys), part)


def test_what_is_refused():
  z, t, s = _points()
  with pytest.raises(ValueError, match='shapes'):
    flow_maps.jump(MAP, z, t, s[:1])
  with pytest.raises(ValueError, match=r'times of shape \(2,\)'):
    flow_maps.lagrangian_errors(MAP, z, t[:2], s[:2])
  with pytest.raises(ValueError, match='expected the same'):
    flow_maps.mean_flow_errors(MAP, z, t, s, z[:, :1])
  with pytest.raises(ValueError, match='expected the same'):
    flow_maps.consistency_errors(MAP, z, t, z[:1], t, s)
  with pytest.raises(ValueError, match="stop = 'all'"):
    flow_maps.lagrangian_errors(MAP, z, t, s, stop='all')
  run = functools.partial(flow_maps.sample, u=MAP, process=known.FLOW, z=z)
  with pytest.raises(ValueError, match='falling'):
    run(flow_maps.Jumps(), times=np.array([0.0, 1.0]))
  with pytest.raises(ValueError, match='give it the keys'):
    run(flow_maps.Jumps(0.5), times=np.array([1.0, 0.0]))
