"""Streaming layers against torch's modules of the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import streaming
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import rotary
from audiolm_jax.tokenizers.parts import transformer as transformer_lib

pytestmark = pytest.mark.parity

_QUICK = {'xla_backend_optimization_level': 0}


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _close(actual, expected, tolerance=1e-5):
  expected = np.asarray(expected)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
      np.asarray(actual) / scale, expected / scale, rtol=0, atol=tolerance
  )


_LSTM = {
    'input': 'weight_ih',
    'recurrent': 'weight_hh',
    'input_bias': 'bias_ih',
    'recurrent_bias': 'bias_hh',
}


def _lstm_tree(module, layers, bidirectional, read):
  """Our tree of `read(parameter)` for each of torch's parameters."""
  directions = ('', '_reverse') if bidirectional else ('',)
  return {
      f'layer_{i}{direction}': {
          ours: read(getattr(module, f'{theirs}_l{i}{direction}')).T
          for ours, theirs in _LSTM.items()
      }
      for i in range(layers)
      for direction in directions
  }


@pytest.mark.parametrize('bidirectional', [False, True])
def test_lstm(bidirectional):
  import torch  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  theirs = torch.nn.LSTM(6, 6, 2, batch_first=True, bidirectional=bidirectional)
  ours = streaming.Lstm(layers=2, bidirectional=bidirectional)
  params = _lstm_tree(theirs, 2, bidirectional, lambda p: p.detach().numpy())
  x, num_samples = _random(3, 9, 6), [9, 5, 1]
  mask = streaming.length_mask(jnp.array(num_samples), 9)
  weight = _random(3, 9, 12 if bidirectional else 6, seed=1)

  def loss(params):
    y, y_mask = ours.apply({'params': params}, x, mask)
    return jnp.sum(jnp.where(y_mask[..., None], y * weight, 0)), y

  gradient, y = jax.jit(jax.grad(loss, has_aux=True))(params)
  for row, length in enumerate(num_samples):
    one = torch.tensor(x[row : row + 1, :length])
    # SpeechTokenizer's skip: the input beside itself for both directions.
    expected = theirs(one)[0] + torch.cat([one] * (1 + bidirectional), -1)
    _close(y[row, :length], expected[0].detach())
    factor = torch.tensor(weight[row, :length])
    (expected[0] * factor).sum().backward()
  expected = _lstm_tree(theirs, 2, bidirectional, lambda p: p.grad.numpy())
  jax.tree.map(_close, gradient, expected)


_BLOCK = {
    ('attention', 'query'): 'self_attn.q_proj',
    ('attention', 'key'): 'self_attn.k_proj',
    ('attention', 'value'): 'self_attn.v_proj',
    ('attention', 'out'): 'self_attn.o_proj',
    ('mlp', 'up'): 'mlp.fc1',
    ('mlp', 'down'): 'mlp.fc2',
}


def _mimi_block(theirs):
  """Our tree of one of Mimi's layers."""
  state = {k: v.numpy() for k, v in theirs.state_dict().items()}
  tree = {'attention': {}, 'mlp': {}}
  for (part, ours), name in _BLOCK.items():
    tree[part][ours] = state[f'{name}.weight'].T
  for ours, name in (
      ('attention', 'input_layernorm'),
      ('mlp', 'post_attention_layernorm'),
  ):
    tree[f'{ours}_norm'] = {
        'scale': state[f'{name}.weight'],
        'bias': state[f'{name}.bias'],
    }
  tree['attention_scale'] = {'scale': state['self_attn_layer_scale.scale']}
  tree['mlp_scale'] = {'scale': state['mlp_layer_scale.scale']}
  return tree


@pytest.mark.parametrize('kv_heads', [4, 2])
def test_transformer_is_mimis(kv_heads):
  """Sequences of three windows and more, in chunks and in ring-cached steps."""
  import torch  # pylint: disable=g-import-not-at-top
  import transformers  # pylint: disable=g-import-not-at-top
  from transformers.models.mimi import modeling_mimi  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  window, length = 5, 17
  settings = transformers.MimiConfig(
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=kv_heads,
      intermediate_size=48,
      sliding_window=window,
      layer_scale_initial_scale=0.7,
      attn_implementation='eager',
  )
  theirs = modeling_mimi.MimiTransformerModel(settings).eval()
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.add_(0.2 * torch.randn_like(parameter))
  ours = transformer_lib.Transformer(
      layers=2,
      heads=4,
      kv_heads=kv_heads,
      mlp_width=48,
      window=window,
      layer_scale=0.7,
  )
  variables = {
      'params': {
          f'block_{i}': _mimi_block(layer)
          for i, layer in enumerate(theirs.layers)
      }
  }
  x = _random(2, length, 32)
  with torch.no_grad():
    expected = theirs(torch.tensor(x)).last_hidden_state.numpy()
  mask = np.ones((2, length), bool)
  y, _ = jax.jit(ours.apply, compiler_options=_QUICK)(variables, x, mask)
  _close(y, expected)
  state = ours.initial_state(2, jax.ShapeDtypeStruct((32,), jnp.float32))
  step = jax.jit(
      lambda *args: ours.apply(variables, *args, method='step'),
      compiler_options=_QUICK,
  )
  outputs, start = [], 0
  # Shorter and longer than the window, and longer than two of them.
  for size in (3, 11, 1, 1, 1):
    end = start + size
    y, _, state = step(x[:, start:end], mask[:, start:end], state)
    outputs.append(y)
    start = end
  _close(jnp.concatenate(outputs, axis=1), expected)


def test_rotation_by_heads_is_xcodec2s():
  import torch  # pylint: disable=g-import-not-at-top
  import transformers  # pylint: disable=g-import-not-at-top
  from transformers.models.xcodec2 import modeling_xcodec2  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  settings = transformers.Xcodec2Config(
      hidden_size=32,
      num_attention_heads=4,
      num_key_value_heads=4,
      head_dim=8,
      intermediate_size=48,
      attn_implementation='eager',
  )
  theirs = modeling_xcodec2.Xcodec2DecoderLayer(settings, 0).eval()
  embedding = modeling_xcodec2.Xcodec2RotaryEmbedding(settings)
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.add_(0.2 * torch.randn_like(parameter))
  x = _random(2, 7, 32)
  with torch.no_grad():
    positions = embedding(torch.tensor(x), torch.arange(4)[None])
    expected = theirs(torch.tensor(x), position_embeddings=positions).numpy()
  block = transformer_lib.TransformerBlock(
      attention.Attention(
          4, mask_kind='bidirectional', positions=rotary.HeadRope()
      ),
      mlps.Dense(48, 'silu'),
      norm='rms',
      norm_epsilon=1e-6,
  )
  state = {k: v.numpy() for k, v in theirs.state_dict().items()}
  params = {'attention': {}, 'mlp': {}}
  for (part, ours), name in _BLOCK.items():
    params[part][ours] = state[f'{name}.weight'].T
  params['attention_norm'] = {'scale': state['input_layernorm.weight']}
  params['mlp_norm'] = {'scale': state['post_attention_layernorm.weight']}
  y, _ = block.apply({'params': params}, x, np.ones((2, 7), bool))
  _close(y, expected)


@pytest.mark.parametrize('groups', [1, 3])
def test_time_group_norm(groups):
  import torch  # pylint: disable=g-import-not-at-top

  theirs = torch.nn.GroupNorm(groups, 6, eps=1e-5)
  with torch.no_grad():
    theirs.weight.uniform_(0.5, 1.5)
    theirs.bias.uniform_(-1, 1)
  params = {
      'scale': theirs.weight.detach().numpy(),
      'bias': theirs.bias.detach().numpy(),
  }
  x, num_samples = 3 + _random(2, 9, 6), [9, 4]
  mask = streaming.length_mask(jnp.array(num_samples), 9)
  y, _ = streaming.TimeGroupNorm(groups).apply({'params': params}, x, mask)
  for row, length in enumerate(num_samples):
    one = torch.tensor(x[row : row + 1, :length]).transpose(1, 2)
    expected = theirs(one).transpose(1, 2)[0].detach()
    _close(y[row, :length], expected)


def test_snakes_are_dacs_and_xcodec2s():
  import torch  # pylint: disable=g-import-not-at-top
  from transformers.models.dac import modeling_dac  # pylint: disable=g-import-not-at-top
  from transformers.models.xcodec2 import modeling_xcodec2  # pylint: disable=g-import-not-at-top

  x, mask = 3 * _random(2, 9, 4), np.ones((2, 9), bool)
  alpha = np.array([0.3, 1.0, -2.0, 4.0], np.float32)
  beta = np.array([1.0, -0.5, 0.2, 2.0], np.float32)
  single, double = modeling_dac.Snake1d(4), modeling_xcodec2.Xcodec2SnakeBeta(4)
  cases = (
      (streaming.Snake(), single, {'alpha': alpha}),
      (
          streaming.Snake(separate=True, log_scale=True),
          double,
          {'alpha': alpha, 'beta': beta},
      ),
  )
  for ours, theirs, params in cases:
    with torch.no_grad():
      for name, value in params.items():
        parameter = getattr(theirs, name)
        parameter.copy_(torch.tensor(value).reshape(parameter.shape))
      expected = theirs(torch.tensor(x).transpose(1, 2)).transpose(1, 2)
    y, _ = ours.apply({'params': params}, x, mask)
    _close(y, expected)


@pytest.mark.parametrize('factor', [2, 3])
def test_linear_upsampling_and_pooling(factor):
  import torch  # pylint: disable=g-import-not-at-top

  x, mask = _random(2, 6, 4), np.ones((2, 6), bool)
  there = torch.tensor(x).transpose(1, 2)
  y, _ = streaming.Upsample(factor, 'linear').apply({}, x, mask)
  expected = torch.nn.functional.interpolate(
      there, scale_factor=factor, mode='linear'
  )
  _close(y, expected.transpose(1, 2))
  y, _ = streaming.AveragePool(factor).apply({}, x, mask)
  expected = torch.nn.functional.avg_pool1d(there, factor)
  _close(y, expected.transpose(1, 2))
