"""Two causal mixers, one of them from the right."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import bidirectional
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.backbones.mixers import short_conv
from audiolm_jax.streaming import lstm
from audiolm_jax.streaming import testing

SPEC = jax.ShapeDtypeStruct((8,), jnp.float32)
MIXERS = {
    'lstm': lstm.Lstm(1),
    'mamba2': mamba2.Mamba2(state_width=4, head_width=8, chunk=4),
    'rg_lru': rg_lru.RgLru(heads=2),
    's4d': s4d.S4d(4, form='scan'),
    # Not of the table, and of a bounded reach.
    'short': short_conv.ShortConv(3),
}


def test_all_causal_mixers_are_here():
  assert set(MIXERS) == {*bidirectional.CAUSAL, 'short'}


@pytest.mark.parametrize('name', MIXERS)
def test_it_is_a_layer(name):
  layer = bidirectional.Bidirectional(MIXERS[name])
  assert not layer.steppable and not layer.causal
  testing.assert_layer_contract(layer, SPEC)


def test_the_reach_is_that_of_both_sides():
  layer = bidirectional.Bidirectional(MIXERS['short'])
  assert layer.reach(5, 7) == (3, 9)
  assert bidirectional.Bidirectional(MIXERS['s4d']).reach(5, 7) is None


def test_it_is_the_sum_of_both_directions():
  mixer = MIXERS['rg_lru']
  layer = bidirectional.Bidirectional(mixer)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)
  lengths = (6, 4)
  mask = jnp.arange(6) < jnp.array(lengths)[:, None]
  params = nn.meta.unbox(layer.init(jax.random.key(0), x, mask)['params'])
  found, _ = layer.apply({'params': params}, x, mask)

  def one(way, x):
    own = {'params': params[way]}
    return mixer.apply(own, x, jnp.ones(x.shape[:2], bool))[0]

  for row, n in enumerate(lengths):
    alone = x[row : row + 1, :n]
    expected = one('forward', alone) + one('backward', alone[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(found[row, :n], expected[0], atol=1e-5)
  # Each direction has weights of its own.
  ways = (jax.tree.leaves(params[way]) for way in ('forward', 'backward'))
  assert any((a != b).any() for a, b in zip(*ways, strict=True))


def test_attention_and_steps_are_refused():
  with pytest.raises(config.ConfigError, match='mask_kind'):
    bidirectional.Bidirectional(attention.Attention(2))
  layer = bidirectional.Bidirectional(MIXERS['s4d'])
  with pytest.raises(ValueError, match='no steps'):
    layer.initial_state(1, SPEC)
