"""Codes are drawn as often as they should be, however rare they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.decoders import waveform_heads
from audiolm_jax.generation import sampling
from audiolm_jax.ops import draws

VOCABULARY = 8192
# Of each code but the first.
RARE = 3e-8
DRAWS = 3 * 4096


def _rare_codes(draw):
  """How many of DRAWS codes are rare ones; 3.0 expected."""
  logits = jnp.full(VOCABULARY, np.log(RARE), jnp.float32).at[0].set(0.0)

  @jax.jit
  def count(key):
    keys = jax.random.split(key, (DRAWS // 32, 32))
    same = jnp.broadcast_to(logits, (32, VOCABULARY))
    return jnp.sum(jax.lax.map(lambda k: jnp.sum(draw(k, same) > 0), keys))

  return int(count(jax.random.key(0)))


@pytest.mark.parametrize(
    ('draw', 'least', 'most'),
    [
        # Poisson with mean 3: 4% and 0.4% lie beyond these.
        (lambda keys, x: sampling.Sampler()(x, keys), 1, 8),
        # The default draws about a tenth of them.
        (lambda keys, x: jax.vmap(jax.random.categorical)(keys, x), 0, 0),
    ],
    ids=['ours', 'default'],
)
def test_rare_codes(draw, least, most):
  assert least <= _rare_codes(draw) <= most


def test_common_codes_and_codes_that_there_are_not():
  p = np.array([[0.5, 0.3, 0.2, 0], [0.1, 0, 0.2, 0.7]])
  with np.errstate(divide='ignore'):
    logits = jnp.asarray(np.log(p), jnp.float32)
  keys = jax.random.split(jax.random.key(1), 20_000)
  # One key draws both.
  found = draws.categorical(keys, jnp.broadcast_to(logits, (20_000, 2, 4)))
  shares = (np.asarray(found)[..., None] == np.arange(4)).mean(0)
  np.testing.assert_allclose(shares, p, atol=0.015)
  assert (shares[p == 0] == 0).all()
  # And not the same number for both.
  both = np.mean((found[:, 0] == 0) & (found[:, 1] == 3))
  np.testing.assert_allclose(both, 0.35, atol=0.015)


def test_a_draw_depends_on_its_own_key_only():
  logits = jax.random.normal(jax.random.key(0), (3, 2, 5))
  keys = jax.random.split(jax.random.key(1), (3, 2))
  together = draws.categorical(keys, logits)
  for i in range(3):
    for j in range(2):
      alone = draws.categorical(keys[i, j], logits[i, j])
      assert together[i, j] == alone


@pytest.mark.parametrize('name', ['mu_law', 'logistics'])
def test_heads_over_samples_draw_by_it(name, monkeypatch):
  head = waveform_heads.HEADS[name]()
  h = jnp.ones((2, 4))
  sample = functools.partial(
      head.apply, temperature=1.0, channels=1, bits=8, method='sample'
  )
  keys = jax.random.split(jax.random.key(0), 2)
  params = head.init(jax.random.key(0), h, keys, 1.0, 1, 8, method='sample')
  monkeypatch.delattr(draws, 'categorical')
  with pytest.raises(AttributeError, match='categorical'):
    sample(params, h, keys)
