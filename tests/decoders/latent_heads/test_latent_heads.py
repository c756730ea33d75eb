"""Heads over single frames: densities, draws, what is known in closed form."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import base
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights
from tests.decoders import small
from tests.processes import known

M, D, L = 5, 4, 3
PLAIN = latent_heads.LatentSampler()
TIME = time_embedding.TimeEmbedding(frequencies=4, scale=10.0)
NETWORK = network_lib.AdalnMlp(8, 2, TIME)
HEADS = {
    'mixture': latent_heads.Mixture(components=3),
    'diffusion': latent_heads.Diffusion(
        NETWORK, grid=times_lib.Grid(3), draws=2
    ),
    'flow_map': latent_heads.FlowMap(NETWORK, grid=times_lib.Grid(2), draws=2),
}
every_head = pytest.mark.parametrize('name', HEADS)


def _values(seed, *shape):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


H, X = _values(0, M, D), _values(1, M, L)
KEYS = noise_lib.row_keys(jax.random.key(0), jnp.arange(M))


def _params(head, seed=0):
  return small.parameters(head, H, X, KEYS, seed=seed, method='losses')


_STATIC = 'head', 'method', 'dimension', 'sampler', 'steps'


@functools.partial(small.quick_jit, static_argnames=_STATIC)
def _run(head, params, inputs, method, **options):
  return head.apply({'params': params}, *inputs, method=method, **options)


def _losses(head, params, h=H, x=X, keys=KEYS):
  return _run(head, params, (h, x, keys), 'losses')


def _draw(head, params, h=H, keys=KEYS, sampler=PLAIN, **options):
  options |= {'dimension': L, 'sampler': sampler}
  return _run(head, params, (h, keys), 'draw', **options)


def test_every_head_is_tested():
  assert HEADS.keys() == decoders.LATENT_HEADS.keys()
  for name, head in HEADS.items():
    assert isinstance(head, decoders.LATENT_HEADS[name])


@every_head
def test_a_frame_is_itself_beside_any_others(name):
  """Losses, draws and densities go by h, x and the frame's key."""
  head = HEADS[name]
  params, some = _params(head), np.array([3, 0])
  whole = _losses(head, params)
  assert set(whole) == set(head.loss_weights)
  part = _losses(head, params, H[some], X[some], KEYS[some])
  for term, loss in whole.items():
    np.testing.assert_allclose(loss[some], part[term], rtol=2e-5, atol=1e-6)
  drawn = _draw(head, params)
  again = _draw(head, params, H[some], KEYS[some])
  assert drawn.shape == (M, L)
  np.testing.assert_allclose(drawn[some], again, rtol=2e-5, atol=1e-5)
  # Another key, another frame; another h, too.
  other = _draw(head, params, H, KEYS[::-1])
  assert (np.abs(other - drawn)[:2] > 1e-4).all()
  other = _draw(head, params, H[::-1])
  assert (np.abs(other - drawn)[:2] > 1e-4).all()


def test_draws_of_a_frame_in_training_are_their_own():
  h, x, keys, number = base.several(3, H, X, KEYS)
  assert len(set(map(tuple, jax.random.key_data(keys).tolist()))) == 3 * M
  np.testing.assert_array_equal(number, np.repeat(np.arange(3), M))
  for draw in range(3):
    rows = slice(draw * M, (draw + 1) * M)
    np.testing.assert_array_equal(h[rows], H)
    np.testing.assert_array_equal(x[rows], X)
  parts = base.within(keys, number, 3)
  np.testing.assert_array_equal(np.floor(3 * parts), number)


@every_head
def test_temperature_0_draws_no_noise_and_guidance_has_its_ends(name):
  head = HEADS[name]
  params = _params(head)
  still = latent_heads.LatentSampler(temperature=0.0)

  def draw(keys=KEYS, sampler=PLAIN, h=H, **guided):
    return _draw(head, params, h, keys, sampler, **guided)

  np.testing.assert_allclose(
      draw(KEYS, still), draw(KEYS[::-1], still), rtol=1e-6, atol=1e-6
  )
  null = H[::-1]
  for scale, expected in ((1.0, H), (0.0, null)):
    np.testing.assert_allclose(
        draw(null=null, guidance=scale), draw(h=expected), rtol=1e-4, atol=1e-5
    )
  assert np.abs(draw(null=null, guidance=3.0) - draw()).max() > 0.01


@every_head
def test_what_would_do_nothing_is_refused(name):
  head = HEADS[name]
  solver = latent_heads.LatentSampler(solver=solvers.Heun())
  grid = latent_heads.LatentSampler(grid=times_lib.Grid(4))
  for sampler, takes, what in (
      (solver, head.takes_solver, 'solver'),
      (grid, head.takes_steps, 'grid'),
  ):
    if takes:
      head.check(sampler)
    else:
      with pytest.raises(ValueError, match=what):
        head.check(sampler)
  head.check(PLAIN)


def test_evaluations_are_those_of_the_network():
  heun = latent_heads.LatentSampler(
      solver=solvers.Heun(), grid=times_lib.Grid(5)
  )
  assert HEADS['diffusion'].evaluations(heun) == 10
  assert HEADS['diffusion'].evaluations(PLAIN) == 3
  assert HEADS['flow_map'].evaluations(PLAIN) == 2
  assert HEADS['mixture'].evaluations(PLAIN) == 1


# -- a mixture ------------------------------------------------------------------


def test_the_density_of_a_mixture_is_scipys():
  head = HEADS['mixture']
  params = _params(head)
  found = _run(head, params, (H, X), 'log_prob')
  share, mean, std = _run(head, params, (H,), 'parameters', dimension=L)
  np.testing.assert_allclose(np.exp(share).sum(1), 1, rtol=1e-5)
  assert (std > head.least_std).all()
  for row in range(M):
    density = sum(
        np.exp(share[row, c])
        * scipy.stats.multivariate_normal.pdf(
            X[row], mean[row, c], np.diag(np.square(std[row, c]))
        )
        for c in range(3)
    )
    np.testing.assert_allclose(found[row], np.log(density), rtol=1e-4)
  loss = _losses(head, params)['nll']
  np.testing.assert_array_equal(loss, -found)


def test_a_mixture_starts_near_unit_normals_that_differ():
  head = latent_heads.Mixture(components=4)
  variables = head.init(jax.random.key(0), H, X, KEYS, method='losses')
  params = nn.meta.unbox(variables)['params']
  share, mean, std = _run(head, params, (0 * H,), 'parameters', dimension=L)
  np.testing.assert_allclose(np.exp(share), 0.25, rtol=1e-5)
  np.testing.assert_allclose(std, 1, atol=2e-3)
  assert np.ptp(mean, axis=1).min() > 0.1


def test_draws_of_a_mixture_have_its_moments_at_any_temperature():
  head = HEADS['mixture']
  params = _params(head)
  share, mean, std = (
      np.asarray(p[0], np.float64)
      for p in _run(head, params, (H,), 'parameters', dimension=L)
  )
  count = 40_000
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(count))
  h = jnp.broadcast_to(H[:1], (count, D))
  for temperature in (1.0, 0.5):
    sampler = latent_heads.LatentSampler(temperature=temperature)
    x = np.asarray(_draw(head, params, h, keys, sampler))
    weight = np.exp(share / temperature)
    weight /= weight.sum()
    center = weight @ mean
    spread = np.square(mean - center) + temperature * np.square(std)
    variance = weight @ spread
    error = np.sqrt(variance / count)
    assert (np.abs(x.mean(0) - center) < 5 * error).all()
    np.testing.assert_allclose(x.var(0), variance, rtol=0.05)


# -- noise to data ---------------------------------------------------------------


class Known(latent_heads.Diffusion):
  """The head of N(rho h, 1 - rho^2), h the frame before, without a network."""

  rho: float = 0.9

  def predict(self, z, h, t):
    std = np.sqrt(1 - self.rho**2)
    denoiser = known.normal(self.process, self.target, self.rho * h, std)
    return denoiser.predict(z, t)


def _rolled(head, sampler, rows=4000, frames=40):
  """The last frames [rows, 1] of rollouts from 0."""

  @small.quick_jit
  def run():
    keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(rows))

    def step(x, number):
      own = noise_lib.fold(keys, number)
      return head.apply({}, x, own, 1, sampler, method='draw'), None

    return jax.lax.scan(step, jnp.zeros((rows, 1)), jnp.arange(frames))[0]

  return np.asarray(run())


@pytest.mark.parametrize('steps', [2, 10])
def test_rollouts_drift_as_eulers_steps_say(steps):
  """AR(1): the deviation is f_N(s) / s at s^2 = 1 - rho^2, in closed form."""
  grid = times_lib.Grid(steps)
  x = _rolled(Known(grid=grid), PLAIN)
  variance, t = 1 - 0.9**2, grid.times
  factor = 1.0
  for now, after in zip(t[:-1], t[1:], strict=True):
    spread = (1 - now) ** 2 * variance + now**2
    factor *= 1 + (after - now) * (now - (1 - now) * variance) / spread
  expected = factor / np.sqrt(variance)
  if steps == 10:
    assert expected == pytest.approx(0.8536, abs=1e-4)
  assert x.std() == pytest.approx(expected, rel=0.035)


def test_a_temperature_multiplies_the_variance_of_rollouts():
  """Of solvers without noise in their steps, and with."""
  grid = times_lib.Grid(64)
  head = Known(process=gaussian.Cosine(), target='v')
  for solver in (solvers.Heun(), solvers.Ddim(noise=1.0)):
    hot, cool = (
        _rolled(
            head,
            latent_heads.LatentSampler(
                temperature=temperature, grid=grid, solver=solver
            ),
            frames=30,
        )
        for temperature in (1.0, 0.7)
    )
    # All is linear in the noise, and its draws are the same.
    assert cool.std() / hot.std() == pytest.approx(np.sqrt(0.7), rel=1e-3)
    # To first order of the steps.
    assert hot.std() == pytest.approx(1, rel=0.08)


@pytest.mark.parametrize(
    'process, target',
    [(gaussian.RectifiedFlow(), 'u'), (gaussian.Cosine(), 'v')],
)
def test_the_likelihood_of_a_known_head_is_the_normal_density(process, target):
  head = Known(process=process, target=target)
  assert head.tag == 'exact'
  h = _values(3, 6, 1)
  x = 0.9 * h + np.sqrt(0.19) * _values(4, 6, 1)
  found = _run(head, {}, (h, x), 'log_prob', steps=64)
  expected = scipy.stats.norm.logpdf(x[:, 0], 0.9 * h[:, 0], np.sqrt(0.19))
  np.testing.assert_allclose(found, expected, atol=3e-3)


def test_a_head_without_a_likelihood_says_so():
  leftover = latent_heads.Diffusion(NETWORK, gaussian.VariancePreserving(), 'v')
  for head in (leftover, HEADS['flow_map']):
    assert head.tag == 'none'
    with pytest.raises(ValueError, match='no likelihood'):
      _run(head, _params(head), (H, X), 'log_prob')


@pytest.mark.parametrize('target', 'xevu')
@pytest.mark.parametrize('weight', [weights.Plain(), weights.MinSnr()])
def test_the_error_of_a_known_head_has_its_closed_form(target, weight):
  """The variance of the target given z, in the mean over many draws."""
  process = gaussian.Cosine()
  head = Known(process=process, target=target, weight=weight, draws=64)
  rows = 512
  h = _values(5, rows, 1)
  x = 0.9 * h + np.sqrt(0.19) * _values(6, rows, 1)
  keys = noise_lib.row_keys(jax.random.key(2), jnp.arange(rows))
  found = np.mean(_losses(head, {}, h, x, keys)['denoising'])
  t = jnp.linspace(0, 1, 2001)[1:-1]
  a, b = process.scales(t)
  # That of x given z, in units of the target's.
  variance = 0.19 * b**2 / (0.19 * a**2 + b**2)
  error = variance * process.error_factor(target, t)
  expected = jnp.mean(error * weight.factor(process, target, t))
  assert found == pytest.approx(float(expected), rel=0.05)


# -- jumps -----------------------------------------------------------------------


class KnownMap(latent_heads.FlowMap):
  """The flow map of N(rho h, 1 - rho^2)."""

  rho: float = 0.9
  wrong: float = 0.0

  def velocity(self, z, h, t, s):
    std = np.sqrt(1 - self.rho**2)

    def spread(t):
      return jnp.sqrt((1 - t) ** 2 * std**2 + t**2)[:, None]

    mean, (t_, s_) = self.rho * h, (t[:, None], s[:, None])
    # Where the times are one, the limit.
    apart = jnp.where(t_ == s_, 1, s_ - t_)
    end = (1 - s_) * mean + spread(s) / spread(t) * (z - (1 - t_) * mean)
    slope = (t_ - (1 - t_) * std**2) / spread(t) ** 2
    still = -mean + slope * (z - (1 - t_) * mean)
    jump = (end - z) / apart
    return jnp.where(t_ == s_, still, jump) + self.wrong * (s_ - t_)


@pytest.mark.parametrize('steps', [1, 3])
def test_jumps_of_the_true_map_are_exact(steps):
  x = _rolled(KnownMap(grid=times_lib.Grid(steps)), PLAIN)
  assert x.std() == pytest.approx(1, rel=0.035)


def test_the_true_map_distils_to_itself_and_a_wrong_one_does_not():
  h, x = _values(3, 64, 1), _values(4, 64, 1)
  keys = noise_lib.row_keys(jax.random.key(2), jnp.arange(64))

  def distillation(wrong):
    losses = _losses(KnownMap(wrong=wrong), {}, h, x, keys)
    return float(np.mean(losses['distillation']))

  assert distillation(0.0) < 1e-8
  assert distillation(0.3) > 1e-3


def test_a_threshold_of_rows_that_do_not_end_is_refused():
  with pytest.raises(config.ConfigError, match='threshold'):
    latent_heads.LatentSampler(ends=False, threshold=0.5)
  for wrong in (
      {'temperature': -1.0},
      {'history_noise': 1.5},
      {'threshold': 2.0},
      {'threshold': np.nan},
  ):
    with pytest.raises(config.ConfigError, match=next(iter(wrong))):
      latent_heads.LatentSampler(**wrong)
