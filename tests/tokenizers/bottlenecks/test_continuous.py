"""VAE, sigma-VAE and mu-law: their distributions and their grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from audiolm_jax import config
from audiolm_jax.tokenizers.bottlenecks import mu_law
from audiolm_jax.tokenizers.bottlenecks import vae

MASK = np.ones((1, 4), bool)


@pytest.fixture(name='x')
def _x():
  rng = np.random.default_rng(0)
  return rng.standard_normal((1, 4, 4)).astype(np.float32)


def _scale(x):
  return np.log1p(np.exp(x)) + 1e-4


def test_kl_is_the_integral(x):
  one = vae.Vae(dimension=2, project=False)
  found = one.quantise(one.init(jax.random.key(0), 4), x, MASK)
  mean, scale = x[..., :2], _scale(x[..., 2:])
  for frame in range(4):
    expected = 0.0
    for m, s in zip(mean[0, frame], scale[0, frame], strict=True):
      q = scipy.stats.norm(m, s)

      def integrand(z, q=q):
        return q.pdf(z) * (q.logpdf(z) - scipy.stats.norm.logpdf(z))

      expected += scipy.integrate.quad(integrand, m - 9 * s, m + 9 * s)[0]
    np.testing.assert_allclose(found.losses['kl'][0, frame], expected, 1e-4)


def test_a_sample_has_the_mean_and_scale_of_its_frame(x):
  one = vae.Vae(dimension=2, project=False)
  variables = one.init(jax.random.key(0), 4)
  np.testing.assert_allclose(
      one.quantise(variables, x, MASK).latents, x[..., :2]
  )
  rngs = jax.random.split(jax.random.key(0), 4000)
  samples = jax.jit(
      jax.vmap(lambda r: one.quantise(variables, x, MASK, rng=r).latents)
  )(rngs)
  scale = _scale(x[..., 2:])
  np.testing.assert_allclose(samples.mean(0), x[..., :2], atol=0.1)
  np.testing.assert_allclose(samples.std(0), scale, rtol=0.06)


def test_a_sample_is_reparametrised(x):
  one = vae.Vae(dimension=2, project=False)
  variables, rng = one.init(jax.random.key(0), 4), jax.random.key(1)

  def total(x):
    return one.quantise(variables, x, MASK, rng=rng).latents.sum()

  noise = (
      one.quantise(variables, x, MASK, rng=rng).latents - x[..., :2]
  ) / _scale(x[..., 2:])
  gradient = jax.jit(jax.grad(total))(x)
  np.testing.assert_allclose(gradient[..., :2], 1.0, rtol=1e-6)
  sigmoid = 1 / (1 + np.exp(-x[..., 2:]))
  np.testing.assert_allclose(gradient[..., 2:], noise * sigmoid, rtol=1e-3)


@pytest.mark.parametrize('random_scale', [False, True])
def test_sigma_vaes_noise(x, random_scale):
  one = vae.SigmaVae(dimension=4, project=False, random_scale=random_scale)
  variables = one.init(jax.random.key(0), 4)
  still = one.quantise(variables, x, MASK)
  np.testing.assert_array_equal(still.latents, x)
  np.testing.assert_allclose(
      still.losses['kl'], 0.5 * np.square(x).sum(-1), rtol=1e-6
  )
  rngs = jax.random.split(jax.random.key(0), 4000)
  noise = jax.jit(
      jax.vmap(lambda r: one.quantise(variables, x, MASK, rng=r).latents - x)
  )(rngs)
  np.testing.assert_allclose(noise.std(), 0.625, rtol=0.05)
  # Of one sample: its own scale, the same for all of a row.
  deviations = np.asarray(noise).reshape(4000, -1).std(axis=-1)
  assert (deviations.std() > 0.2) == random_scale


def test_the_decoder_sees_the_latents_width():
  assert vae.Vae(dimension=3, project=False).output_dimension(6) == 3
  assert vae.Vae(dimension=3).output_dimension(6) == 6
  with pytest.raises(config.ConfigError, match='takes 6'):
    vae.Vae(dimension=3, project=False).init(jax.random.key(0), 5)


@pytest.mark.parametrize('vocabulary', [256, 255, 2, 1024])
def test_mu_law_is_one_to_one_on_its_grid(vocabulary):
  codes = jnp.arange(vocabulary)
  values = mu_law.expand(codes, vocabulary)
  np.testing.assert_array_equal(mu_law.compress(values, vocabulary), codes)
  assert (np.diff(values) > 0).all()
  np.testing.assert_allclose(values[jnp.array([0, -1])], [-1, 1], rtol=1e-6)
  np.testing.assert_allclose(values, -values[::-1], atol=1e-6)


def test_mu_law_follows_the_recommendation():
  """F(x) = sgn(x) ln(1 + 255 |x|) / ln 256, to the nearest of 256 values."""
  x = np.linspace(-1.2, 1.2, 501)
  inside = np.clip(x, -1, 1)
  law = np.sign(inside) * np.log(1 + 255 * np.abs(inside)) / np.log(256)
  expected = np.floor((law + 1) / 2 * 255 + 0.5)
  np.testing.assert_array_equal(mu_law.compress(jnp.asarray(x), 256), expected)
  one = mu_law.MuLaw()
  found = one.quantise(
      one.init(jax.random.key(0), 1),
      x[None, :, None].astype(np.float32),
      np.ones((1, 501), bool),
  )
  np.testing.assert_array_equal(found.codes[0, :, 0], expected)
  # Of the two nearest codes, at the companded scale.
  place = (law + 1) / 2 * 255
  distances = np.sort(np.abs(place[:, None] - np.arange(256)), axis=-1)
  near, far = distances[:, 0], distances[:, 1]
  np.testing.assert_allclose(
      found.margins[0, :, 0], (far - near) / (far + near), atol=2e-3
  )


def test_mu_law_passes_gradients_straight_through():
  one = mu_law.MuLaw(channels=2)
  x = np.random.default_rng(0).uniform(-1, 1, (1, 6, 2)).astype(np.float32)
  weight = np.random.default_rng(1).normal(size=x.shape)
  mask = np.arange(6)[None] < 4
  gradient = jax.jit(
      jax.grad(lambda x: jnp.sum(one.quantise({}, x, mask).latents * weight))
  )(x)
  np.testing.assert_allclose(gradient, weight * mask[..., None], rtol=1e-6)
