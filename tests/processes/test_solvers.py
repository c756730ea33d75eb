"""Solvers against closed forms: no network, known denoisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.processes import known

STEPS = (1, 2, 4, 10, 32)


def run(solver, denoiser, z, steps, **options):
  times = times_lib.Grid(steps).times
  return solvers.sample(solver, denoiser, z, times, **options)


def decay(solver, process, target, steps, std=1.0):
  """What one unit of noise becomes: these flows are linear."""
  denoiser = known.normal(process, target, std=std)
  return float(run(solver, denoiser, known.ones(1, 1, 1), steps)[0, 0, 0])


def _euler(steps, std):
  """f_N(s), the product over t = 1, 1 - 1/N, ..., 1/N of the data's share."""
  t = np.arange(steps) / steps  # data at 1
  variance = (t * std) ** 2 + (1 - t) ** 2
  return np.prod(1 + (t * std**2 - 1 + t) / (steps * variance))


@pytest.mark.parametrize('target', ['v', 'u'])
def test_decay_of_noise_under_ddim(target):
  for steps in STEPS:
    found = decay(solvers.Ddim(), known.COSINE, target, steps)
    expected = np.cos(np.pi / (2 * steps)) ** steps
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize('std', [1.0, 0.3])
@pytest.mark.parametrize('target', ['v', 'u'])
def test_decay_of_noise_under_euler(target, std):
  for steps in STEPS:
    found = decay(solvers.Euler(), known.FLOW, target, steps, std)
    np.testing.assert_allclose(found, _euler(steps, std), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('solver', 'process', 'table'),
    [
        (solvers.Ddim(), known.COSINE, (0, 0.5, 0.7286, 0.8835, 0.9622)),
        (solvers.Euler(), known.FLOW, (0, 0.5, 0.72, 0.8790, 0.9606)),
        (solvers.Heun(), known.FLOW, (0.5, 0.9375, 0.99, 0.9993, 1)),
        (solvers.Midpoint(), known.FLOW, (1, 0.98, 0.9979, 0.9999, 1)),
    ],
    ids=['ddim', 'euler', 'heun', 'midpoint'],
)
def test_decay_of_noise_in_a_table(solver, process, table):
  for steps, expected in zip(STEPS, table, strict=True):
    found = decay(solver, process, 'v', steps)
    assert found == pytest.approx(expected, abs=6e-5)


def test_decay_of_noise_under_dpm_2m():
  for steps, expected in ((4, 0.7911), (10, 0.9792), (32, 0.99965)):
    found = decay(solvers.Dpm2m(), known.COSINE, 'v', steps)
    assert found == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ('solver', 'order'),
    [
        (solvers.Euler(), 1),
        (solvers.Ddim(), 1),
        (solvers.Heun(), 2),
        # Here of third order, by symmetry.
        (solvers.Midpoint(), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_orders(solver, order):
  """Twice the steps: an error of 2^-order times."""
  std = 2.0
  errors = [
      1 - decay(solver, known.FLOW, 'v', steps, std) / std for steps in (16, 32)
  ]
  assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    'name', ['euler', 'heun', 'midpoint', 'ddim', 'dpm_2m']
)
def test_means_are_exact_whatever_the_steps(name):
  solver = solvers.SOLVERS[name]()
  denoiser = known.normal(known.FLOW, 'u', mean=3.0, std=0.5)
  for steps in (1, 3):
    found = run(solver, denoiser, jnp.zeros((1, 1, 1)), steps)
    np.testing.assert_allclose(found, 3.0, rtol=1e-5)


@pytest.mark.parametrize('process', [known.COSINE, known.FLOW, known.VP])
@pytest.mark.parametrize(
    'solver',
    [
        solvers.Ddim(noise=0.5),
        solvers.Ddim(noise=1.0),
        solvers.Dpm2m(random=True),
        solvers.Sde(),
        solvers.Sde(strength=0.3),
        solvers.PingPong(),
    ],
    ids=str,
)
def test_random_solvers_keep_the_distribution(solver, process):
  denoiser = known.normal(process, 'v', mean=1.0, std=0.5)
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(4))
  z = noise_lib.normal(noise_lib.fold(keys, 999), (500, 8))
  # Of first order: 40 steps would leave up to a tenth too little spread.
  x = run(solver, denoiser, z, 200, keys=keys)
  assert np.mean(x) == pytest.approx(1, abs=0.02)
  # Ping-pong is for consistency functions: of posterior means it keeps the mean.
  if not isinstance(solver, solvers.PingPong):
    assert np.std(x) == pytest.approx(0.5, rel=0.05)


def test_ancestral_sampling_is_the_first_order_stochastic_solver():
  """Two papers' forms of one step; 2M's first step has nothing before it."""
  denoiser = known.normal(known.COSINE, 'v', mean=1.0, std=0.5)
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(2))
  z = noise_lib.normal(keys, (3, 2))
  for times in ([0.9, 0.4], [1.0, 0.5]):
    one, other = (
        solvers.sample(s, denoiser, z, np.array(times), keys)
        for s in (solvers.Ddim(noise=1.0), solvers.Dpm2m(random=True))
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_ddim_is_euler_for_rectified_flow():
  denoiser = known.normal(known.FLOW, 'u', mean=1.0, std=0.5)
  z = noise_lib.normal(jax.random.split(jax.random.key(0), 2), (3, 2))
  one, other = (
      run(s, denoiser, z, 5) for s in (solvers.Ddim(), solvers.Euler())
  )
  np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_guided_normals():
  """N(m, 1) guided over N(0, 1) is N(w m, 1), and what is swapped is not."""
  pair = [known.normal(known.FLOW, 'u', m).predict for m in (2.0, 0.0)]

  def mean(conditional, unconditional, scale):
    predict = guidance_lib.guided(conditional, unconditional, scale)
    denoiser = gaussian.Denoiser(known.FLOW, 'u', predict)
    z = jnp.array([[[0.0, 1.0]]])
    low, high = run(solvers.Heun(), denoiser, z, 16)[0, 0]
    np.testing.assert_allclose(high - low, 1, atol=1e-3)
    return float(low)

  for scale in (0.0, 1.0, 3.0):
    assert mean(*pair, scale) == pytest.approx(2 * scale, abs=1e-4)
  assert mean(*pair[::-1], 3.0) == pytest.approx(2 * (1 - 3), abs=1e-4)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_drift_of_an_autoregression_under_temperature(temperature):
  """A head with N Euler steps narrows the whole rollout, in closed form."""
  rho, steps, rows = 0.9, 10, 2000
  std = np.sqrt(1 - rho**2)
  times = times_lib.Grid(steps).times
  keys = jax.random.split(jax.random.key(0), rows)

  @jax.jit
  def rollout():
    def step(x, index):
      denoiser = known.normal(known.FLOW, 'u', rho * x, std)
      z = noise_lib.normal(noise_lib.fold(keys, index), (1, 1))
      z = z * jnp.sqrt(temperature)
      return solvers.sample(solvers.Euler(), denoiser, z, times), None

    start = jnp.zeros((rows, 1, 1))
    return jax.lax.scan(step, start, jnp.arange(60))[0]

  expected = _euler(steps, std) / std * np.sqrt(temperature)
  if temperature == 1:
    assert expected == pytest.approx(0.8536, abs=5e-5)
  assert np.std(rollout()) == pytest.approx(expected, rel=0.05)
  # One step, without the spread of a simulation.
  denoiser = known.normal(known.FLOW, 'u', rho * 0.5, std)
  z = np.sqrt(temperature) * jnp.array([[[-1.0, 1.0]]])
  low, high = solvers.sample(solvers.Euler(), denoiser, z, times)[0, 0]
  assert (high + low) / 2 == pytest.approx(rho * 0.5, rel=1e-5)
  assert (high - low) / 2 / std == pytest.approx(expected, rel=1e-5)


def test_a_mixture_of_clouds():
  means = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])
  denoiser = known.mixture(known.COSINE, 'v', means, 0.3)
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(2))
  z = noise_lib.normal(keys, (2000, 2))
  x = np.asarray(run(solvers.Dpm2m(), denoiser, z, 60)).reshape(-1, 2)
  nearest = np.argmin(np.linalg.norm(x[:, None] - means, axis=-1), axis=1)
  for index, mean in enumerate(np.asarray(means)):
    cloud = x[nearest == index]
    assert len(cloud) / len(x) == pytest.approx(1 / 3, abs=0.04)
    np.testing.assert_allclose(cloud.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(cloud.T), 0.09 * np.eye(2), atol=0.02)


def _mixing(process):
  """A denoiser whose frames see each other, and which heeds a mask."""

  def predict(z, t, mask):
    t = jnp.reshape(t, (-1, 1, 1))
    z = jnp.where(mask[..., None], z, 0)
    mean = z.sum(1, keepdims=True) / mask.sum(1)[:, None, None]
    return jnp.tanh(0.5 * z + 0.3 * mean - t)

  return lambda mask: gaussian.Denoiser(
      process, 'v', functools.partial(predict, mask=mask)
  )


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_rows_alone_chunks_and_padding(name):
  solver = solvers.SOLVERS[name]()
  if name == 'ddim':
    solver = solvers.Ddim(noise=0.5)
  denoiser = _mixing(known.COSINE)
  rng = jax.random.key(3)
  keys = noise_lib.row_keys(rng, jnp.array([5, 6, 7]))
  lengths = np.array([4, 2, 3])

  def sample(keys, lengths, size):
    z = noise_lib.normal(keys, (size, 2))
    mask = np.arange(size) < lengths[:, None]
    x = run(solver, denoiser(jnp.asarray(mask)), z, 3, keys=keys)
    return np.where(mask[..., None], x, 0)

  batch = sample(keys, lengths, 6)
  for row, length in enumerate(lengths):
    alone = sample(keys[row : row + 1], lengths[row : row + 1], length)
    np.testing.assert_allclose(
        batch[row, :length], alone[0], rtol=1e-5, atol=1e-6
    )
  # Rows have noise of their own.
  assert not np.allclose(batch[0, :2], batch[1, :2], atol=1e-2)


def test_a_chunk_has_the_noise_of_its_part_of_the_whole():
  solver, denoiser = solvers.Sde(), known.normal(known.COSINE, 'v')
  keys = noise_lib.row_keys(jax.random.key(3), jnp.arange(2))
  whole = run(solver, denoiser, noise_lib.normal(keys, (6, 2)), 4, keys=keys)
  start = jnp.array([2, 3])
  z = noise_lib.normal(keys, (3, 2), start)
  part = run(solver, denoiser, z, 4, keys=keys, start=start)
  for row, first in enumerate((2, 3)):
    np.testing.assert_array_equal(part[row], whole[row, first : first + 3])


@pytest.mark.parametrize(
    'times', [[1.0], [0.0, 1.0], [1.0, 1.0], [1.5, 0.0], [1.0, -0.1], [[1, 0]]]
)
def test_times_that_do_not_fall_are_refused(times):
  denoiser = known.normal(known.FLOW, 'u')
  with pytest.raises(ValueError, match='falling'):
    solvers.sample(solvers.Euler(), denoiser, known.ones(1, 1, 1), times)


def test_what_cannot_be_asked_is_refused():
  z = known.ones(1, 1, 1)
  with pytest.raises(ValueError, match='at t = 1'):
    run(solvers.Ddim(), known.normal(known.FLOW, 'e'), z, 4)
  with pytest.raises(ValueError, match='at t = 0'):
    run(solvers.Heun(), known.normal(known.FLOW, 'x'), z, 4)
  with pytest.raises(ValueError, match='slopes'):
    run(solvers.Heun(), known.normal(known.VP, 'v'), z, 4)
  with pytest.raises(ValueError, match='keys of the rows'):
    run(solvers.Sde(), known.normal(known.FLOW, 'u'), z, 4)
  # Not asked at t = 0, nor for slopes.
  assert np.isfinite(run(solvers.Ddim(), known.normal(known.FLOW, 'x'), z, 4))
  assert np.isfinite(run(solvers.Euler(), known.normal(known.VP, 'x'), z, 4))
