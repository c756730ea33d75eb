"""Adversarial losses in closed form; what must move them does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.objectives import adversarial
from audiolm_jax.objectives import discriminators

LENGTHS = jnp.array([10, 6, 0])
COUNTS = jnp.array([2, 1, 0])


def _verdict(logits, features=((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))):
  """One sub-discriminator with 2 positions of which rows own 2, 1 and none."""
  logits = discriminators.Map.of(jnp.asarray(logits), COUNTS)
  features = jnp.asarray(features)[..., None]
  return discriminators.Verdict(
      logits=logits, features=(discriminators.Map.of(features, COUNTS),)
  )


REAL = _verdict([[0.5, 3.0], [-1.0, 9.0], [9.0, 9.0]])
FAKE = _verdict([[-0.5, 2.0], [-4.0, 9.0], [9.0, 9.0]])


def _of(name):
  return adversarial.LOSSES[name]


def test_hinge():
  # Rows: real (.5 + 0) / 2 and 2; fake (.5 + 3) / 2 and 0.
  value, weight = adversarial.discriminator_term(
      _of('hinge'), [REAL], [FAKE], LENGTHS
  )
  assert float(value) == pytest.approx(10 * (0.25 + 1.75) + 6 * (2.0 + 0.0))
  assert float(weight) == 16
  value, _ = adversarial.codec_term(_of('hinge'), [FAKE], LENGTHS)
  assert float(value) == pytest.approx(10 * (1.5 + 0) / 2 + 6 * 5.0)
  value, _ = adversarial.codec_term(_of('hinge_linear'), [FAKE], LENGTHS)
  assert float(value) == pytest.approx(10 * -0.75 + 6 * 4.0)


def test_least_squares():
  value, _ = adversarial.discriminator_term(
      _of('least_squares'), [REAL], [FAKE], LENGTHS
  )
  first = (0.25 + 4.0) / 2 + (0.25 + 4.0) / 2
  assert float(value) == pytest.approx(10 * first + 6 * (4.0 + 16.0))
  value, _ = adversarial.codec_term(_of('least_squares'), [FAKE], LENGTHS)
  assert float(value) == pytest.approx(10 * (2.25 + 1.0) / 2 + 6 * 25.0)


def test_sub_discriminators_are_averaged_or_summed():
  short = discriminators.Map.of(jnp.full((3, 1), -2.0), jnp.array([1, 0, 0]))
  other = discriminators.Verdict(short, (short,))
  loss = _of('hinge_linear')
  summed, _ = adversarial.codec_term(loss, [FAKE, other], LENGTHS, 'sum')
  assert float(summed) == pytest.approx(10 * (-0.75 + 2.0) + 6 * 4.0)
  mean, weight = adversarial.codec_term(loss, [FAKE, other], LENGTHS)
  # The second row has no position in the other one, which then has no say.
  assert float(mean) == pytest.approx(10 * (-0.75 + 2.0) / 2 + 6 * 4.0)
  assert float(weight) == 16


def test_features():
  real = _verdict(jnp.zeros((3, 2)), [[1.0, -3.0], [2.0, 7.0], [7.0, 7.0]])
  fake = _verdict(jnp.zeros((3, 2)), [[0.0, 1.0], [5.0, 8.0], [8.0, 8.0]])
  value, weight = adversarial.feature_term([real], [fake], LENGTHS)
  assert float(value) == pytest.approx(10 * (1 + 4) / 2 + 6 * 3)
  assert float(weight) == 16
  normal, _ = adversarial.feature_term([real], [fake], LENGTHS, normalise=True)
  assert float(normal) == pytest.approx(float(value) / 2.0)
  twice = real.replace(features=real.features * 2)
  again = fake.replace(features=fake.features * 2)
  mean, _ = adversarial.feature_term([twice], [again], LENGTHS)
  assert float(mean) == pytest.approx(float(value))
  total, _ = adversarial.feature_term(
      [twice], [again], LENGTHS, reduction='sum'
  )
  assert float(total) == pytest.approx(2 * float(value))


def test_real_features_are_constants_even_where_they_normalise():
  fake = _verdict(jnp.zeros((3, 2)), jnp.ones((3, 2)))

  def loss(features):
    real = _verdict(jnp.zeros((3, 2)), features)
    return adversarial.feature_term([real], [fake], LENGTHS, normalise=True)[0]

  assert not jax.grad(loss)(jnp.full((3, 2), 3.0)).any()


def test_silence_cannot_make_features_infinite():
  zero = _verdict(jnp.zeros((3, 2)))
  one = _verdict(jnp.zeros((3, 2)), jnp.ones((3, 2)))
  value, _ = adversarial.feature_term([zero], [one], LENGTHS, normalise=True)
  assert np.isfinite(value)


@pytest.mark.parametrize('name', sorted(adversarial.LOSSES))
def test_each_side_pulls_its_logits_its_own_way(name):
  """Downhill, the discriminator parts real from fake; the codec closes up."""
  logits = jnp.full((3, 2), 0.5)
  loss = _of(name)

  def of_discriminator(real, fake):
    return adversarial.discriminator_term(
        loss, [_verdict(real)], [_verdict(fake)], LENGTHS
    )[0]

  def of_codec(fake):
    return adversarial.codec_term(loss, [_verdict(fake)], LENGTHS)[0]

  real, fake = jax.grad(of_discriminator, (0, 1))(logits, logits)
  codec = jax.grad(of_codec)(logits)
  own = np.array([[1, 1], [1, 0], [0, 0]], bool)
  assert (real[own] < 0).all() and (fake[own] > 0).all()
  assert (codec[own] < 0).all()
  # Masked positions neither push nor are pushed.
  assert not real[~own].any() and not fake[~own].any() and not codec[~own].any()


def test_terms_add_over_microbatches():
  rng = np.random.default_rng(0)
  logits, features = rng.normal(size=(2, 3, 2))
  real, fake = _verdict(logits, features), _verdict(features, logits)

  def terms(real, fake, num_samples):
    loss = _of('least_squares')
    return [
        adversarial.discriminator_term(loss, [real], [fake], num_samples),
        adversarial.codec_term(loss, [fake], num_samples),
        adversarial.feature_term([real], [fake], num_samples),
    ]

  parts = [
      terms(*jax.tree.map(lambda x, s=s: x[s], (real, fake, LENGTHS)))
      for s in (slice(0, 1), slice(1, 3))
  ]
  total = jax.tree.map(jnp.add, *parts)
  np.testing.assert_allclose(total, terms(real, fake, LENGTHS), rtol=1e-6)
