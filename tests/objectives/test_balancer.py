"""The gradient balancer against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.objectives import balancer as balancer_lib

_RNG = np.random.default_rng(0)
SLOPES = {
    'a': jnp.asarray(_RNG.normal(size=(3, 5, 1)), 'float32'),
    'b': jnp.asarray(100 * _RNG.normal(size=(3, 5, 1)), 'float32'),
}
WEIGHTS = {'a': 1.0, 'b': 3.0}
ROWS = jnp.float32(3)


def _losses(audio):
  return {k: jnp.sum(s * audio) / 3 for k, s in SLOPES.items()}, 'aux'


def _norm(g):
  """Mean over rows of the norm of a row's gradient."""
  return np.mean([np.linalg.norm(row) for row in np.asarray(g)])


def _term(settings, state, audio, weights=None):
  out = settings(state, _losses, audio, weights or WEIGHTS, ROWS)
  value, rows = out.term
  return value / rows, out


def test_weights_are_shares_whatever_the_scale():
  settings = balancer_lib.Balancer(total_norm=2.0)
  state = settings.init(SLOPES)
  audio = jnp.ones((3, 5, 1))
  (value, out), gradient = jax.value_and_grad(
      lambda x: _term(settings, state, x), has_aux=True
  )(audio)
  shares = {k: WEIGHTS[k] / 4 * SLOPES[k] / _norm(SLOPES[k]) for k in SLOPES}
  # A mean over rows: each row's gradient has norm total_norm, over three.
  want = 2.0 * (shares['a'] + shares['b']) / 3
  np.testing.assert_allclose(gradient, want, rtol=1e-5)
  losses, aux = _losses(audio)
  assert out.aux == aux
  assert float(value) == pytest.approx(
      float(losses['a'] + 3 * losses['b']), rel=1e-5
  )
  for name in SLOPES:
    assert float(out.norms[name]) == pytest.approx(
        _norm(SLOPES[name]) / 3, rel=1e-5
    )


def test_norms_are_averaged_without_the_bias_of_the_start():
  settings = balancer_lib.Balancer(decay=0.5)
  state = settings.init(['a'])
  for norm in (8.0, 2.0, 4.0):
    state = settings.update(state, {'a': jnp.float32(norm)})
  mean = (0.25 * 8 + 0.5 * 2 + 4) / 1.75
  assert float(state.totals['a'] / state.weight) == pytest.approx(mean)


def test_the_running_mean_scales_not_the_batchs_own_norm():
  """A batch whose gradient is small stays small, after others."""
  settings = balancer_lib.Balancer(decay=1.0)
  weights, audio = {'a': 1.0, 'b': 0.0}, jnp.zeros((3, 5, 1))
  once = jax.grad(
      lambda x: _term(settings, settings.init(SLOPES), x, weights)[0]
  )(audio)
  past = {'a': 3 * _norm(SLOPES['a']) / 3, 'b': 1.0}
  state = settings.update(settings.init(SLOPES), past)
  again = jax.grad(lambda x: _term(settings, state, x, weights)[0])(audio)
  # The mean of three times this batch's norm and this batch's.
  np.testing.assert_allclose(again, once / 2, rtol=1e-5)


def test_losses_without_weight_or_gradient_do_no_harm():
  settings = balancer_lib.Balancer()
  state = settings.init(SLOPES)

  def losses(audio):
    return {'a': jnp.sum(audio * SLOPES['a']), 'b': 0.0 * jnp.sum(audio)}, None

  def term(audio, weights):
    return settings(state, losses, audio, weights, ROWS).term[0]

  gradient = jax.grad(term)(jnp.zeros((3, 5, 1)), {'a': 1.0, 'b': 0.0})
  want = SLOPES['a'] / _norm(SLOPES['a'])
  np.testing.assert_allclose(gradient, want, rtol=1e-5)
  gradient = jax.grad(term)(jnp.zeros((3, 5, 1)), {'a': 0.0, 'b': 0.0})
  assert not gradient.any()


def test_nothing_but_the_audio_gets_a_gradient():
  """Parameters inside the losses (a discriminator's) are constants."""
  settings = balancer_lib.Balancer()

  def term(scale, state):
    def losses(audio):
      return {'a': jnp.sum(scale * SLOPES['a'] * audio)}, None

    audio = jnp.ones((3, 5, 1))
    return settings(state, losses, audio, {'a': 1.0}, ROWS).term[0]

  scale, state = jax.grad(term, (0, 1))(2.0, settings.init(['a']))
  assert scale == 0
  assert all(not x.any() for x in jax.tree.leaves(state))
