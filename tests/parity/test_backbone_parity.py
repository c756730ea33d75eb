"""Our transformer, attention and spectra against torch and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import attention as attention_ops
from audiolm_jax.ops import mel
from audiolm_jax.ops import rotary
from audiolm_jax.ops import stft

pytestmark = pytest.mark.parity


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope='module', name='llama')
def _llama():
  """A random Llama with norms that are not all ones."""
  import torch  # pylint: disable=g-import-not-at-top
  import transformers  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  config = transformers.LlamaConfig(
      vocab_size=8,
      hidden_size=32,
      intermediate_size=48,
      num_hidden_layers=3,
      num_attention_heads=4,
      num_key_value_heads=2,
      rms_norm_eps=1e-5,
      rope_theta=10_000.0,
      initializer_range=0.3,
      attn_implementation='eager',
  )
  model = transformers.LlamaModel(config).eval()
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if 'norm' in name:
        parameter.uniform_(0.5, 1.5)
  return model


_NAMES = {
    ('mixer', 'query'): 'self_attn.q_proj',
    ('mixer', 'key'): 'self_attn.k_proj',
    ('mixer', 'value'): 'self_attn.v_proj',
    ('mixer', 'out'): 'self_attn.o_proj',
    ('mlp', 'gate'): 'mlp.gate_proj',
    ('mlp', 'up'): 'mlp.up_proj',
    ('mlp', 'down'): 'mlp.down_proj',
    ('mixer_norm', 'scale'): 'input_layernorm',
    ('mlp_norm', 'scale'): 'post_attention_layernorm',
}


def _params(llama):
  found = {k: v.detach().numpy() for k, v in llama.named_parameters()}
  layers = {}
  for (group, name), theirs in _NAMES.items():
    stack_lib = [found[f'layers.{i}.{theirs}.weight'].T for i in range(3)]
    layers.setdefault(group, {})[name] = jnp.stack(stack_lib)
  return {
      'layers': {'block_0': layers},
      'norm': {'scale': found['norm.weight']},
  }


@pytest.mark.parametrize('padding', ['none', 'right'])
def test_the_backbone_is_llama(llama, padding):
  import torch  # pylint: disable=g-import-not-at-top

  x = _random(2, 9, 32)
  valid = np.ones((2, 9), bool)
  if padding == 'right':
    valid[1, 5:] = False
  ours = stack_lib.Stack(32, 3, (attention.Attention(4, 2),), mlps.Dense(48))
  got, _ = jax.jit(ours.apply)({'params': _params(llama)}, x, valid)
  with torch.no_grad():
    want = llama(
        inputs_embeds=torch.tensor(x),
        attention_mask=torch.tensor(valid.astype(np.int64)),
    ).last_hidden_state.numpy()
  np.testing.assert_allclose(
      np.asarray(got)[valid], want[valid], rtol=1e-4, atol=1e-4
  )


def test_two_weights_of_a_shape_swapped_are_noticed(llama):
  import torch  # pylint: disable=g-import-not-at-top

  x = _random(1, 9, 32)
  ours = stack_lib.Stack(32, 3, (attention.Attention(4, 2),), mlps.Dense(48))
  with torch.no_grad():
    want = llama(inputs_embeds=torch.tensor(x)).last_hidden_state.numpy()
  apply = jax.jit(ours.apply)
  for group, one, other in (
      ('mixer', 'query', 'out'),
      ('mixer', 'key', 'value'),
      ('mlp', 'gate', 'up'),
  ):
    params = _params(llama)
    part = params['layers']['block_0'][group]
    part[one], part[other] = part[other], part[one]
    got, _ = apply({'params': params}, x, np.ones((1, 9), bool))
    assert np.abs(np.asarray(got) - want).max() > 1e-2, (one, other)


@pytest.mark.parametrize('causal', [True, False])
def test_attention_and_its_gradients_are_torchs(causal):
  import torch  # pylint: disable=g-import-not-at-top

  q, k, v = (_random(2, 6, h, 8, seed=h) for h in (4, 2, 2))
  v = v + 1
  probe = _random(2, 6, 4, 8, seed=9)
  kind = 'causal' if causal else 'bidirectional'
  at = jnp.arange(6)[None]
  seen = attention_ops.Mask(kind)(at, at)

  def ours(q, k, v):
    y = attention_ops.attend(q, k, v, seen, jnp.ones((2, 6), bool))
    return jnp.sum(y * probe), y

  got, y = jax.grad(ours, (0, 1, 2), has_aux=True)(q, k, v)
  theirs = [
      torch.tensor(a.swapaxes(1, 2), requires_grad=True) for a in (q, k, v)
  ]
  out = torch.nn.functional.scaled_dot_product_attention(
      *theirs, is_causal=causal, enable_gqa=True
  )
  np.testing.assert_allclose(
      y, out.detach().numpy().swapaxes(1, 2), rtol=1e-4, atol=1e-5
  )
  (out * torch.tensor(probe.swapaxes(1, 2))).sum().backward()
  for mine, tensor in zip(got, theirs, strict=True):
    np.testing.assert_allclose(
        mine, tensor.grad.numpy().swapaxes(1, 2), rtol=1e-3, atol=1e-5
    )


def test_the_stft_is_torchs():
  import torch  # pylint: disable=g-import-not-at-top

  x = _random(2, 1000)
  want = torch.stft(
      torch.tensor(x),
      256,
      64,
      window=torch.hann_window(256),
      center=False,
      return_complex=True,
  ).numpy()
  got = stft.stft(jnp.asarray(x), 256, 64)
  np.testing.assert_allclose(got, want.swapaxes(1, 2), rtol=1e-4, atol=1e-3)


def test_mel_filters_are_those_of_transformers():
  from transformers import audio_utils  # pylint: disable=g-import-not-at-top

  want = audio_utils.mel_filter_bank(
      num_frequency_bins=513,
      num_mel_filters=40,
      min_frequency=0.0,
      max_frequency=8000.0,
      sampling_rate=16000,
      mel_scale='htk',
  )
  np.testing.assert_allclose(mel.mel_filters(16000, 1024, 40), want, atol=1e-5)


def test_sinks_and_their_gradients_are_those_of_gpt_oss():
  """Its eager attention concatenates the logit, then drops it."""
  import torch  # pylint: disable=g-import-not-at-top
  from transformers.models.gpt_oss import modeling_gpt_oss  # pylint: disable=g-import-not-at-top

  q, k, v = (_random(2, 6, h, 8, seed=h) for h in (4, 2, 2))
  sinks = np.array([-1.0, 0.5, 2.0, 4.0], np.float32)
  probe = _random(2, 6, 4, 8, seed=9)
  at = jnp.arange(6)[None]
  seen = attention_ops.Mask('causal', 3)(at, at)

  def ours(q, k, v, sinks):
    k, v = attention_ops.heads_first(k), attention_ops.heads_first(v)
    part = attention_ops.Part(q, k, v, seen)
    y = attention_ops.attend_parts([part], sinks, 0.4)
    return jnp.sum(y * probe), y

  got, y = jax.grad(ours, (0, 1, 2, 3), has_aux=True)(q, k, v, sinks)
  module = torch.nn.Module()
  module.num_key_value_groups = 2
  module.sinks = torch.nn.Parameter(torch.tensor(sinks))
  module.eval()
  theirs = [
      torch.tensor(a.swapaxes(1, 2), requires_grad=True) for a in (q, k, v)
  ]
  mask = torch.where(torch.tensor(np.asarray(seen)), 0.0, -torch.inf)[:, None]
  out, _ = modeling_gpt_oss.eager_attention_forward(
      module, *theirs, mask, scaling=0.4
  )
  np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-4, atol=1e-5)
  (out * torch.tensor(probe)).sum().backward()
  for mine, tensor in zip(got, theirs, strict=False):
    np.testing.assert_allclose(
        mine, tensor.grad.numpy().swapaxes(1, 2), rtol=1e-3, atol=1e-5
    )
  np.testing.assert_allclose(
      got[3], module.sinks.grad.numpy(), rtol=1e-3, atol=1e-5
  )


@pytest.mark.parametrize(
    'scaling',
    [
        {'factor': 32.0, 'original_max_position_embeddings': 4096},
        {
            'factor': 4.0,
            'original_max_position_embeddings': 64,
            'beta_fast': 8.0,
            'beta_slow': 2.0,
            'truncate': False,
        },
        {
            'factor': 2.0,
            'original_max_position_embeddings': 512,
            'attention_factor': 1.5,
        },
    ],
    ids=str,
)
@pytest.mark.parametrize('fraction', [1.0, 0.5])
def test_yarn_is_that_of_transformers(scaling, fraction):
  from transformers import modeling_rope_utils  # pylint: disable=g-import-not-at-top
  import transformers  # pylint: disable=g-import-not-at-top

  theta = 150_000.0
  config = transformers.LlamaConfig(
      hidden_size=256,
      num_attention_heads=4,
      rope_parameters={
          'rope_type': 'yarn',
          'rope_theta': theta,
          'partial_rotary_factor': fraction,
          **scaling,
      },
  )
  radians, factor = modeling_rope_utils._compute_yarn_parameters(config)
  scaling = dict(scaling)
  length = scaling.pop('original_max_position_embeddings')
  yarn = rotary.Yarn(original_length=length, **scaling)
  plain = rotary.frequencies(int(64 * fraction), theta)
  np.testing.assert_allclose(
      yarn.blend(plain, theta), radians.numpy(), rtol=1e-5
  )
  assert yarn.scale == pytest.approx(factor)
  # And what is done with both.
  cos, sin = rotary.Rope(theta, yarn, fraction).rotation(jnp.array([[3]]), 64)
  angle = 3 * radians.numpy()
  np.testing.assert_allclose(cos[0, 0, 0], np.cos(angle) * factor, rtol=1e-4)
  np.testing.assert_allclose(sin[0, 0, 0], np.sin(angle) * factor, rtol=1e-4)
