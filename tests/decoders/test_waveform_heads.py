"""Every head's probabilities of levels: their sum, their values, gradients."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from audiolm_jax.decoders import waveform_heads
from audiolm_jax.streaming import testing

WIDTH = 6
HEADS = {
    'mu_law': waveform_heads.MuLaw(),
    'logistics': waveform_heads.Logistics(mixtures=3),
    'gaussian': waveform_heads.Gaussian(mixtures=2),
}
_jit = functools.partial(jax.jit, compiler_options=testing.quick_options())


def _levels(bits):
  return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))


def _params(head, scale=1.0, channels=1, seed=0):
  """Random parameters; the output is h [WIDTH] times a kernel of this size."""
  variables = jax.eval_shape(
      lambda: head.init(
          jax.random.key(0),
          jnp.zeros((1, WIDTH)),
          jnp.zeros((1, channels), jnp.int32),
          8,
          method='log_prob',
      )
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda s: jnp.asarray(scale * rng.normal(size=s.shape), jnp.float32),
      nn.meta.unbox(variables)['params'],
  )


@functools.cache
def _all(name, bits):
  """Compiled (params, h [1 D]) -> log-probabilities of all levels [L]."""
  levels = jnp.asarray(_levels(bits))

  @_jit
  def run(params, h):
    h = jnp.broadcast_to(h, (len(levels), h.shape[-1]))
    return HEADS[name].apply(
        {'params': params}, h, levels[:, None], bits, method='log_prob'
    )[:, 0]

  return run


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('name', sorted(HEADS))
def test_probabilities_of_all_levels_add_up_to_1(name, bits):
  head, run = HEADS[name], _all(name, bits)
  h = jnp.ones((1, WIDTH))
  for seed, scale in enumerate([0.0, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e6]):
    log_prob = run(_params(head, scale, seed=seed), h)
    assert np.all(log_prob <= 1e-5)
    total = np.exp(np.asarray(log_prob, np.float64)).sum()
    assert total == pytest.approx(1, abs=2e-5), scale


@pytest.mark.parametrize('name', ['logistic', 'gaussian'])
@pytest.mark.parametrize('bits', [8, 16])
def test_masses_against_scipy_at_all_scales(name, bits):
  """Cell by cell in float64, from point masses to what is flat."""
  mass = _jit(
      functools.partial(getattr(waveform_heads, f'{name}_log_mass'), bits=bits)
  )
  rng = np.random.default_rng(0)
  count, half = 4000, 2 ** (bits - 1)
  log_scales = rng.uniform(-5, 16, count).astype(np.float32)
  means = (rng.uniform(-2, 2, count) * half).astype(np.float32)
  # Levels within some scales of the mean, where there are any.
  samples = means + rng.uniform(-6, 6, count) * np.exp(log_scales)
  samples = np.clip(np.round(samples), -half, half - 1).astype(np.int32)
  samples[:100], samples[100:200] = -half, half - 1
  actual = mass(jnp.asarray(samples), means, log_scales)

  scales = np.exp(log_scales.astype(np.float64))
  low = (samples - 0.5 - means.astype(np.float64)) / scales
  high = (samples + 0.5 - means.astype(np.float64)) / scales
  low[samples == -half], high[samples == half - 1] = -np.inf, np.inf
  # On the side where CDFs are small, so that float64 has digits for them.
  flip = low + high > 0
  low, high = np.where(flip, -high, low), np.where(flip, -low, high)
  distribution = {
      'logistic': scipy.stats.logistic,
      'gaussian': scipy.stats.norm,
  }
  cdf = distribution[name].cdf
  with np.errstate(divide='ignore'):
    expected = np.log(cdf(high) - cdf(low))
  known = np.isfinite(expected) & (expected > -600)
  assert known.mean() > 0.9
  np.testing.assert_allclose(
      np.asarray(actual)[known], expected[known], rtol=2e-4, atol=2e-4
  )
  assert np.all(np.asarray(actual)[~known] < -500)


@pytest.mark.parametrize('name', sorted(HEADS))
def test_gradients_are_finite_at_any_scale(name):
  head = HEADS[name]
  samples = jnp.array([[-32768], [-32767], [-1], [0], [123], [32767]])

  @_jit
  def gradient(params, h):
    def total(params, h):
      return jnp.sum(
          head.apply({'params': params}, h, samples, 16, method='log_prob')
      )

    return jax.grad(total, (0, 1))(params, h)

  h = jnp.ones((len(samples), WIDTH))
  for seed in range(4):
    for scale in (0.0, 1.0, 30.0, 1e3, 1e6):
      params = _params(head, scale, seed=seed)
      for leaf in jax.tree.leaves(gradient(params, h)):
        assert np.isfinite(leaf).all(), scale


@pytest.mark.parametrize('name', ['logistic', 'gaussian'])
def test_gradients_of_masses_against_differences(name):
  """Through every branch: edges, wide and narrow cells, tails on both sides."""
  mass = getattr(waveform_heads, f'{name}_log_mass')
  cases = [
      (sample, mean, log_scale)
      for sample in (-128, -3, 0, 5, 127)
      for mean in (-140.0, 0.3, 60.0)
      for log_scale in (0.5, 1.9, 2.2, 4.0, 9.0)
  ]
  samples, means, log_scales = map(np.array, zip(*cases, strict=True))
  gradient = _jit(
      jax.grad(
          lambda m, s: jnp.sum(mass(jnp.asarray(samples), m, s, 8)), (0, 1)
      )
  )
  actual = gradient(means.astype(np.float32), log_scales.astype(np.float32))
  distribution = {
      'logistic': scipy.stats.logistic,
      'gaussian': scipy.stats.norm,
  }
  cdf = distribution[name]

  def value(means, log_scales):
    scales = np.exp(log_scales)
    a, b = ((samples + e - means) / scales for e in (-0.5, 0.5))
    inside = np.where(a > 0, cdf.sf(a) - cdf.sf(b), cdf.cdf(b) - cdf.cdf(a))
    inside = np.where(samples == -128, cdf.cdf(b), inside)
    with np.errstate(divide='ignore'):
      return np.log(np.where(samples == 127, cdf.sf(a), inside))

  known = np.isfinite(value(means, log_scales))
  assert known.mean() > 0.8
  e = 1e-5
  with np.errstate(invalid='ignore'):
    expected = (
        (value(means + e, log_scales) - value(means - e, log_scales)) / (2 * e),
        (value(means, log_scales + e) - value(means, log_scales - e)) / (2 * e),
    )
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a[known], b[known], rtol=2e-3, atol=2e-4)


def test_the_gaussians_gradient_far_out_is_the_densitys():
  """Where float64 has no mass left: (x - mean) / scale^2, x the near edge."""

  @_jit
  def gradient(samples, means, log_scales):
    mass = waveform_heads.gaussian_log_mass
    return jax.grad(lambda m: jnp.sum(mass(samples, m, log_scales, 16)))(means)

  for mean, log_scale in ((-4e4, -5.0), (9e4, 1.0), (5e5, -5.0), (5e5, 4.0)):
    samples = np.array([-32768, -32767, -1, 0, 200, 32767])
    actual = gradient(samples, np.full(6, mean, np.float32), log_scale)
    edge = samples + (0.5 if mean > 0 else -0.5)
    expected = (edge - mean) / np.exp(2 * log_scale)
    # What lies past an end of the grid is all on its last level.
    expected[-1 if mean > 0 else 0] = 0
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


@pytest.mark.parametrize('bits', [8, 16])
def test_a_uniform_mu_law_model_has_the_bits_of_the_grid(bits):
  head = HEADS['mu_law']
  counts = head.counts(bits)
  assert counts.sum() == 2**bits
  params = {
      'kernel': jnp.zeros((1, WIDTH, 256)),
      'bias': jnp.log(jnp.maximum(counts, 1e-9)),
  }
  log_prob = _all('mu_law', bits)(params, jnp.ones((1, WIDTH)))
  np.testing.assert_allclose(-log_prob / math.log(2), bits, rtol=1e-6)


@pytest.mark.parametrize('name', ['logistics', 'gaussian'])
def test_a_uniform_mixture_has_the_bits_of_the_grid(name):
  """A component for each level, all on that one."""
  bits, levels = 4, _levels(4)
  head = type(HEADS[name])(mixtures=len(levels))
  params = {
      'kernel': jnp.zeros((1, WIDTH, 3 * 16)),
      'bias': jnp.concatenate(
          [jnp.zeros(16), levels / 8, jnp.full(16, -100.0)]
      ),
  }
  h = jnp.ones((16, WIDTH))
  run = functools.partial(head.apply, method='log_prob')
  run = _jit(run, static_argnums=3)
  log_prob = run({'params': params}, h, levels[:, None], bits)
  np.testing.assert_allclose(-log_prob / math.log(2), bits, rtol=1e-5)


def test_mu_law_classes_follow_the_curve():
  """Against the published formula, number by number; all are runs of levels."""
  for bits, classes in ((8, 256), (16, 256), (16, 64)):
    found = waveform_heads.mu_law_classes(bits, classes)
    half, mu = 2 ** (bits - 1), classes - 1
    for k in [-half, -half // 3, -1, 0, 1, 5, half // 2, half - 1]:
      y = math.log(1 + mu * abs(k / half)) / math.log(1 + mu)
      y = math.copysign(y, k)
      assert found[k + half] == math.floor((y + 1) / 2 * mu + 0.5)
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0 and found[-1] == classes - 1
  # 16 bits fill all classes; of 8 bits most near zero have none.
  assert (HEADS['mu_law'].counts(16) > 0).all()
  assert 0 < (HEADS['mu_law'].counts(8) == 0).sum() < 200


def test_grid():
  audio = np.array([-2.0, -1.0, -0.5, 0.0, 0.003, 0.5, 1.0])
  samples = waveform_heads.to_grid(audio, 8)
  assert samples.tolist() == [-128, -128, -64, 0, 0, 64, 127]
  every = _levels(16)
  back = waveform_heads.to_grid(waveform_heads.from_grid(every, 16), 16)
  np.testing.assert_array_equal(back, every)


@functools.cache
def _sampler(name, bits, channels):
  return _jit(
      lambda params, h, rng, temperature: HEADS[name].apply(
          {'params': params},
          h,
          jax.random.split(rng, len(h)),
          temperature,
          channels,
          bits,
          method='sample',
      )
  )


@pytest.mark.parametrize('name', sorted(HEADS))
def test_samples_have_the_probabilities_that_are_scored(name):
  """A chi-square test on 8 bits; scores at another seed's fail it."""
  count = 20_000
  p_values = []
  for other in (0, 1):
    params = _params(HEADS[name], 0.7, seed=3)
    h = jnp.ones((count, WIDTH))
    drawn = _sampler(name, 8, 1)(params, h, jax.random.key(1), 1.0)
    observed = np.bincount(np.asarray(drawn)[:, 0] + 128, minlength=256)
    scored = _params(HEADS[name], 0.7, seed=3 + other)
    expected = count * np.exp(np.float64(_all(name, 8)(scored, h[:1])))
    # Rare levels together.
    rare = expected < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-3))
    statistic = np.sum((observed - expected) ** 2 / expected)
    p_values.append(scipy.stats.chi2.sf(statistic, len(observed) - 1))
  assert p_values[0] > 1e-3
  assert p_values[1] < 1e-6


@pytest.mark.parametrize('name', sorted(HEADS))
def test_temperature_0_takes_the_likeliest_and_more_spreads(name):
  head, bits = HEADS[name], 8
  params = _params(head, 0.7, channels=2)
  h = jnp.broadcast_to(jnp.ones(WIDTH), (500, WIDTH))
  spread = {
      t: _sampler(name, bits, 2)(params, h, jax.random.key(0), t)
      for t in (0.0, 0.5, 2.0)
  }
  assert all(
      s.shape == (500, 2) and s.dtype == jnp.int32 for s in spread.values()
  )
  assert np.ptp(spread[0.0], axis=0).tolist() == [0, 0]
  deviation = {t: np.std(s, axis=0) for t, s in spread.items()}
  assert (deviation[0.5] < deviation[2.0]).all()
  # At 0: the likeliest class's middle, or the likeliest component's mean.
  raw = jnp.ones(WIDTH) @ params['kernel'] + params['bias'].reshape(2, -1)
  if name == 'mu_law':
    raw = np.where(head.counts(bits) > 0, raw, -np.inf)
    classes = waveform_heads.mu_law_classes(bits, 256)
    assert (classes[spread[0.0][0] + 128] == raw.argmax(axis=-1)).all()
  else:
    logits, means, _ = np.split(raw, 3, axis=-1)
    mean = means[[0, 1], logits.argmax(axis=-1)] * 128
    np.testing.assert_array_equal(
        spread[0.0][0], np.clip(np.round(mean), -128, 127)
    )
