"""The network of heads that denoise: what each of its options does."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from tests.decoders import small

M, D, L, W, HIDDEN = 5, 4, 3, 6, 7
TIME = time_embedding.TimeEmbedding(frequencies=2, scale=3.0, use_bias=False)
PLAIN = network_lib.AdalnMlp(W, 2, TIME)
RNG = np.random.default_rng(0)
Z, H = (RNG.standard_normal((M, n)).astype(np.float32) for n in (L, D))
TIMES = RNG.random((2, M)).astype(np.float32)
OPTIONS = {
    'plain': {},
    'wide': {'hidden': HIDDEN},
    'gated': {'activation': 'swiglu', 'hidden': HIDDEN},
    'gelu': {'activation': 'gelu'},
    'rms': {'norm': 'rms', 'norm_epsilon': 0.1},
    'offset': {'norm_bias': True, 'norm_epsilon': 0.1},
    'bare': {'last_scale': False, 'use_bias': False},
}


def _linear(params, name, x):
  return x @ params[name] + params.get(f'{name}_bias', 0)


def _norm(network, params, x):
  if network.norm == 'layer':
    x = x - x.mean(-1, keepdims=True)
  square = np.square(x).mean(-1, keepdims=True)
  x = x / np.sqrt(square + network.norm_epsilon)
  return x * params.get('scale', 1) + params.get('bias', 0)


def _expected(network, params):
  """In numpy, from the formulae."""
  act = {'silu': nn.silu, 'gelu': lambda x: nn.gelu(x, approximate=False)}
  y = _linear(params, 'condition', H)
  for i, t in enumerate(TIMES):
    angles = t[:, None] * network.time._radians()
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    own = params[f'time_{i}']
    y = y + nn.silu(waves @ own['inner']) @ own['outer']
  y = nn.silu(y)
  x = _linear(params, 'noisy', Z)
  for i in range(network.layers):
    block = f'block_{i}'
    modulation = _linear(params, f'{block}_modulation', y)
    scale, shift, gate = np.split(modulation, 3, axis=1)
    inner = _norm(network, params[f'{block}_norm'], x) * (1 + scale) + shift
    up = _linear(params, f'{block}_inner', inner)
    if network.activation == 'swiglu':
      up = up * nn.silu(_linear(params, f'{block}_gate', inner))
    else:
      up = act[network.activation](up)
    x = x + gate * _linear(params, f'{block}_outer', up)
  scale, shift = np.split(_linear(params, 'last_modulation', y), 2, axis=1)
  last = _norm(network, params.get('last_norm', {}), x)
  return _linear(params, 'denoised', last * (1 + scale) + shift)


@pytest.mark.parametrize('name', OPTIONS)
def test_outputs_are_those_of_the_formulae(name):
  network = PLAIN.clone(parent=None, name=None, **OPTIONS[name])
  params = small.parameters(network, Z, H, *TIMES, method='__call__')
  found = small.quick_jit(network.apply)({'params': params}, Z, H, *TIMES)
  expected = _expected(network, jax.tree.map(np.asarray, params))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  hidden = OPTIONS[name].get('hidden', W)
  assert params['block_0_inner'].shape == (W, hidden)
  assert ('block_0_gate' in params) == (name == 'gated')
  assert ('bias' in params['block_0_norm']) == (name == 'offset')
  assert ('last_norm' in params) == (name != 'bare')
  biases = [k for k in params if k.endswith('_bias')]
  assert bool(biases) == (name != 'bare')


@pytest.mark.parametrize('name', OPTIONS)
def test_nothing_is_predicted_at_the_start(name):
  network = PLAIN.clone(parent=None, name=None, **OPTIONS[name])
  found, variables = network.init_with_output(jax.random.key(0), Z, H, *TIMES)
  assert (np.asarray(found) == 0).all()
  for key, leaf in nn.meta.unbox(variables)['params'].items():
    if key.endswith(('_modulation', 'denoised', '_bias')):
      assert (np.asarray(leaf) == 0).all(), key
