"""Weights of errors: one loss, whatever is predicted."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import gaussian
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights
from tests.processes import known

T = jnp.linspace(0.05, 0.95, 19)
PROCESSES = {name: cls() for name, cls in gaussian.PROCESSES.items()}


def test_effective_weights_of_plain_losses():
  """Rectified flow's u and the cosine process's v: one objective."""
  plain = weights.Plain()
  flow = weights.effective(plain, known.FLOW, 'u', T)
  np.testing.assert_allclose(
      flow, np.exp(-known.FLOW.log_snr(T) / 2), rtol=1e-4
  )
  cosine = weights.effective(plain, known.COSINE, 'v', T)
  np.testing.assert_allclose(
      cosine, 2 / np.pi * np.exp(-known.COSINE.log_snr(T) / 2), rtol=1e-4
  )
  # And e-prediction has the density's shape alone: 2 / -l'.
  noise = weights.effective(plain, known.COSINE, 'e', T)
  np.testing.assert_allclose(
      noise, 2 / -known.COSINE.log_snr_slope(T), rtol=1e-4
  )


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('name', weights.WEIGHTS)
def test_a_weight_is_the_same_whatever_is_predicted(name, process):
  if name == 'plain':
    return  # The one that depends on it.
  process, weight = PROCESSES[process], weights.WEIGHTS[name]()
  found = [
      weight.factor(process, kind, T) * process.error_factor(kind, T)
      for kind in 'xevu'
  ]
  for other in found[1:]:
    np.testing.assert_allclose(other, found[0], rtol=1e-4)


def test_the_bound_is_the_likelihood_of_a_known_denoiser():
  """Half the integral of -l' |e - e^|^2 less a constant is the entropy.

  Of N(0, s^2): in terms of l, the excess over that of N(0, 1) is log s
  (2107.00630, I-MMSE: 1/2 the integral of mmse over SNR).
  """
  std = 0.4
  t = times_lib.LogSnrNormal(0.0, 4.0).quantile(
      known.FLOW, jnp.asarray((np.arange(20_000) + 0.5) / 20_000)
  )
  density = times_lib.LogSnrNormal(0.0, 4.0).density(known.FLOW, t)
  a, b = known.FLOW.scales(t)
  factor = weights.Bound().factor(known.FLOW, 'x', t)

  def loss(std):
    # The least mean squared error of x.
    error = std**2 * b**2 / (a**2 * std**2 + b**2)
    return factor * error

  excess = jnp.mean((loss(std) - loss(1.0)) / density)
  assert float(excess) == pytest.approx(np.log(std), rel=0.01)


def test_weights_of_papers():
  snr = np.exp(known.COSINE.log_snr(T))
  factor = weights.MinSnr(5.0).factor
  np.testing.assert_allclose(
      factor(known.COSINE, 'e', T), np.minimum(snr, 5) / snr, rtol=1e-4
  )
  np.testing.assert_allclose(
      factor(known.COSINE, 'v', T), np.minimum(snr, 5) / (snr + 1), rtol=1e-4
  )
  s, d = snr**-0.5, 0.5
  np.testing.assert_allclose(
      weights.Edm(d).factor(known.COSINE, 'x', T),
      (s**2 + d**2) / (s * d) ** 2,
      rtol=1e-4,
  )
  level, slope = known.COSINE.log_snr(T), known.COSINE.log_snr_slope(T)
  np.testing.assert_allclose(
      weights.Sigmoid(-3.0).factor(known.COSINE, 'x', T),
      -slope * np.exp(-3) / (1 + np.exp(-3 - level)),
      rtol=1e-4,
  )
