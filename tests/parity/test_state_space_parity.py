"""Mamba-2's and Griffin's blocks against transformers."""

import jax
import numpy as np
import pytest

from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.streaming import testing

pytestmark = pytest.mark.parity

_WIDTH, _TIME = 16, 21


def _input():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, _TIME, _WIDTH)).astype(np.float32)


def _randomise(module):
  """Nothing at its start, so that nothing can be mistaken for another."""
  import torch  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter.normal_(0, 0.5)
  return {k: v.detach().numpy() for k, v in module.named_parameters()}


def _apply(mixer, params, x, mask):
  run = jax.jit(mixer.apply, compiler_options=testing.quick_options())
  return np.asarray(run({'params': params}, x, mask)[0])


def _close(actual, expected):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * scale)


@pytest.fixture(scope='module', name='mamba')
def _mamba():
  """Options -> (their mixer, ours, our parameters)."""
  from transformers.models.mamba2 import modeling_mamba2  # pylint: disable=g-import-not-at-top

  def build(**options):
    config = modeling_mamba2.Mamba2Config(
        hidden_size=_WIDTH,
        num_heads=8,
        head_dim=4,
        state_size=6,
        chunk_size=5,
        num_hidden_layers=1,
        **options,
    )
    theirs = modeling_mamba2.Mamba2Mixer(config, 0).eval()
    found = _randomise(theirs)
    ours = mamba2.Mamba2(
        state_width=6,
        head_width=4,
        groups=config.n_groups,
        chunk=7,
        dt_floor=config.time_step_limit[0],
        dt_ceiling=config.time_step_limit[1],
        use_bias=config.use_bias,
        conv_bias=config.use_conv_bias,
    )
    conv = {'kernel': found['conv1d.weight'][:, 0].T}
    params = {
        'input': found['in_proj.weight'].T,
        'out': found['out_proj.weight'].T,
        'conv': conv,
        'dt_bias': found['dt_bias'],
        'log_rate': found['A_log'],
        'skip': found['D'],
        'norm': found['norm.weight'],
    }
    if config.use_conv_bias:
      conv['bias'] = found['conv1d.bias']
    if config.use_bias:
      params['input_bias'] = found['in_proj.bias']
      params['out_bias'] = found['out_proj.bias']
    return theirs, ours, params

  return build


@pytest.mark.parametrize(
    'options',
    [
        {'n_groups': 2},
        {
            'n_groups': 1,
            'use_bias': True,
            'use_conv_bias': False,
            'time_step_limit': (0.3, 0.8),
        },
    ],
)
def test_mamba2_is_transformers(mamba, options):
  import torch  # pylint: disable=g-import-not-at-top

  theirs, ours, params = mamba(**options)
  x = _input()
  with torch.no_grad():
    want = theirs(torch.tensor(x)).numpy()
  _close(_apply(ours, params, x, np.ones((2, _TIME), bool)), want)


def test_mamba2_is_transformers_step_by_step(mamba):
  """Their recurrent form is other code than their chunks."""
  import torch  # pylint: disable=g-import-not-at-top
  import transformers  # pylint: disable=g-import-not-at-top

  theirs, ours, params = mamba(n_groups=2)
  x = _input()
  config = transformers.Mamba2Config(num_hidden_layers=1, conv_kernel=4)
  cache, want = transformers.DynamicCache(config=config), []
  with torch.no_grad():
    for piece in np.split(x, [6, *range(7, _TIME)], axis=1):
      want.append(theirs(torch.tensor(piece), cache=cache).numpy())
  want = np.concatenate(want, axis=1)
  _close(_apply(ours, params, x, np.ones((2, _TIME), bool)), want)


def _griffin():
  from transformers.models.recurrent_gemma import modeling_recurrent_gemma  # pylint: disable=g-import-not-at-top

  config = modeling_recurrent_gemma.RecurrentGemmaConfig(
      hidden_size=_WIDTH,
      lru_width=24,
      num_attention_heads=3,
      hidden_activation='gelu_pytorch_tanh',
  )
  block = modeling_recurrent_gemma.RecurrentGemmaRecurrentBlock(config, 0)
  return block.eval()


def test_rg_lru_is_transformers():
  import torch  # pylint: disable=g-import-not-at-top

  theirs = _griffin()
  found = _randomise(theirs)
  params = {
      'conv': {
          'kernel': found['conv_1d.weight'][:, 0].T,
          'bias': found['conv_1d.bias'],
      },
      'rate': found['rg_lru.recurrent_param'],
  }
  for ours, name in {'gate': 'y', 'input': 'x', 'out': 'out'}.items():
    params[ours] = found[f'linear_{name}.weight'].T
    params[f'{ours}_bias'] = found[f'linear_{name}.bias']
  for ours, name in {
      'recurrence_gate': 'recurrent_gate',
      'input_gate': 'input_gate',
  }.items():
    params[ours] = found[f'rg_lru.{name}_weight']
    params[f'{ours}_bias'] = found[f'rg_lru.{name}_bias'].reshape(-1)
  mixer = rg_lru.RgLru(inner=24, heads=3)
  x, mask = _input(), np.ones((2, _TIME), bool)
  positions = torch.arange(_TIME)[None].repeat(2, 1)
  with torch.no_grad():
    want = theirs(torch.tensor(x), positions, None, use_cache=False)[0]
  _close(_apply(mixer, params, x, mask), want.numpy())
