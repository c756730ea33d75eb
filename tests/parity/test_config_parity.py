"""What configs say, level by level and key by key, against transformers' own."""

import contextlib
import copy
import json

import numpy as np
import pytest

transformers = pytest.importorskip('transformers')
torch = pytest.importorskip('torch')

from transformers import modeling_rope_utils  # noqa: E402

from audiolm_jax import interop  # noqa: E402
from tests.interop import tiny_weights  # noqa: E402

pytestmark = pytest.mark.parity

_NAMES = sorted(
    name
    for name in interop.FAMILIES
    if name in transformers.models.auto.configuration_auto.CONFIG_MAPPING
)
# What ours writes though it is theirs by other keys, or read by nobody.
_OURS = {
    'architectures',
    'codebook_dim',
    'dtype',
    'rope_parameters',  # see below
    'decoder.pad_token_id',
    'decoder.bos_token_id',
}
# Of depth decoders: said by the whole, or not looked at.
_DEPTH = {
    'audio_vocab_size',
    'backbone_hidden_size',
    'input_size',
    'max_position_embeddings',
    'num_codebooks',
    'sliding_window',
    'vocab_size',
}
_WINDOWS = {'layer_types', 'sliding_window', 'use_sliding_window'}
# What theirs leaves to its models to derive.
_DERIVED = {'n_inner', 'head_dim', 'audio_vocab_size'}


def _theirs(config):
  """transformers' config of a config.json, as a dictionary."""
  config = copy.deepcopy(config)
  found = transformers.AutoConfig.for_model(config.pop('model_type'), **config)
  values = found.to_dict()
  for part in (found, *(getattr(found, k, None) for k in ('audio_encoder',))):
    if isinstance(part, transformers.EncodecConfig):
      at = values if part is found else values['audio_encoder']
      at['target_bandwidths'] = part.num_quantizers
  return json.loads(json.dumps(values))


def _ours(name, config):
  """What we would write of what we read."""
  family = interop.FAMILIES[name]
  config = json.loads(json.dumps(config))
  model = family.build(config, interop.Options())
  found = family.config_of(model)
  codec = getattr(model, 'codec', model)
  for at in (found, found.get('audio_encoder', {})):
    if 'target_bandwidths' in at:
      at['target_bandwidths'] = codec.bottleneck.codebooks
  return json.loads(json.dumps(found))


def _same(found, wanted, place=''):
  """Asserts that all that `found` says is what `wanted` says."""
  ignored = _DEPTH if place == 'depth_decoder_config.' else set()
  if 'layer_types' in found:
    assert _windows(found) == _windows(wanted)
    ignored = _WINDOWS
  if found.get('model_type') == 'moshi':
    ignored = {'max_position_embeddings'}  # the window
  if found.get('model_type') == 'vibevoice_acoustic_tokenizer':
    ignored = {'sampling_rate'}  # it is of what prepares its audio
  for key, value in found.items():
    at = f'{place}{key}'
    if {key, at} & _OURS or key in ignored:
      continue
    if key not in wanted and _nothing(key, value):
      continue
    other = wanted.get(key) if key in _DERIVED else wanted[key]
    if other is None and key in _DERIVED:
      continue
    if key == 'overlap' and found['chunk_length_s'] is None:
      continue
    if isinstance(value, dict):
      _same(value, other, f'{at}.')
    elif isinstance(value, float):
      # Infinity is spelled out there.
      assert value == pytest.approx(_number(other), rel=1e-12), at
    elif isinstance(value, list) and key == 'time_step_limit':
      assert value == [_number(x) for x in other], at
    elif key in ('bos_token_id', 'eos_token_id'):
      # An id that the vocabulary does not have is none for us.
      size = found.get('text_vocab_size') or found['vocab_size']
      assert value == other or (value is None and other >= size), at
    else:
      assert value == other, at


def _nothing(key, value):
  """What a config lacks there, as all its models are so."""
  return key in ('mlp_bias', 'attention_bias') and not value


def _windows(config):
  """Of each layer."""
  kinds = config['layer_types']
  return [config['sliding_window'] if 'slid' in k else None for k in kinds]


def _number(value):
  return float('inf') if isinstance(value, dict) else value


def _paths(config, place=()):
  for key, value in config.items():
    if key != 'model_type':
      yield (*place, key)
    if isinstance(value, dict) and not key.startswith('rope'):
      yield from _paths(value, (*place, key))


@pytest.mark.parametrize('name', _NAMES)
def test_a_config_that_says_nothing(name):
  config = {'model_type': name}
  _same(_ours(name, config), _theirs(config))


@pytest.mark.parametrize('name', _NAMES)
@pytest.mark.parametrize('null', [False, True], ids=['absent', 'null'])
def test_each_key_that_is_absent_or_null(name, null):
  """Either is refused or read as it is there."""
  full = tiny_weights.ALL[name]
  refused, compared = [], 0
  for path in list(_paths(full)):
    config = copy.deepcopy(full)
    at = config
    for key in path[:-1]:
      at = at[key]
    if null:
      at[path[-1]] = None
    else:
      del at[path[-1]]
    try:
      found = _ours(name, config)
    except interop.PretrainedError as error:
      refused.append((path, str(error)))
      continue
    # Where theirs refuses it, ours may read it.
    with contextlib.suppress(Exception):
      wanted = _theirs(config)
      compared += 1
      _compare(found, wanted, path)
  print(name, 'compared', compared, 'refused', refused)
  assert compared or null


def _compare(found, wanted, path):
  try:
    _same(found, wanted)
  except (AssertionError, KeyError) as error:
    pytest.fail(f'without {path}: {error!r}')


# -- rotary positions ---------------------------------------------------------

_LENGTH = 'original_max_position_embeddings'
_YARN = {'rope_type': 'yarn', 'factor': 8.0}
_LLAMA3 = {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
}
_ROPES = {
    'nothing': {},
    'a base beside nothing': {'rope_theta': 300.0},
    'a base beside': {'rope_theta': 300.0, 'rope_scaling': _YARN},
    'two bases': {
        'rope_theta': 300.0,
        'rope_scaling': {**_YARN, 'rope_theta': 70.0},
    },
    'two objects': {'rope_scaling': _YARN, 'rope_parameters': _LLAMA3},
    'an empty object': {'rope_parameters': {}},
    'null': {'rope_parameters': None},
    'an older name': {'rope_scaling': {'type': 'yarn', 'factor': 8.0}},
    'two names': {'rope_scaling': {**_YARN, 'type': 'default'}},
    'a length inside': {'rope_scaling': {**_YARN, _LENGTH: 16}},
    'a length beside': {'rope_scaling': _YARN, _LENGTH: 16},
    'two lengths': {'rope_scaling': {**_YARN, _LENGTH: 16}, _LENGTH: 32},
    'no length': {'rope_scaling': _YARN},
    'llama3, a length beside': {'rope_scaling': _LLAMA3, _LENGTH: 16},
    'llama3, two lengths': {
        'rope_scaling': {**_LLAMA3, _LENGTH: 16},
        _LENGTH: 32,
    },
    'a factor of null': {
        'rope_scaling': {**_YARN, 'factor': None, _LENGTH: 16},
    },
    'a factor below 1': {
        'rope_scaling': {**_YARN, 'factor': 0.5, _LENGTH: 16},
    },
    'a factor of 1': {'rope_scaling': {**_YARN, 'factor': 1, _LENGTH: 16}},
    'magnitudes': {
        'rope_scaling': {
            **_YARN,
            _LENGTH: 16,
            'mscale': 0.7,
            'mscale_all_dim': 1.3,
        },
    },
    'magnitudes below 1': {
        'rope_scaling': {
            **_YARN,
            'factor': 0.5,
            _LENGTH: 16,
            'mscale': 0.7,
            'mscale_all_dim': 1.3,
        },
    },
    'one magnitude': {'rope_scaling': {**_YARN, _LENGTH: 16, 'mscale': 0.7}},
    'turns of null': {
        'rope_scaling': {
            **_YARN,
            _LENGTH: 16,
            'beta_fast': None,
            'beta_slow': 0,
        },
    },
    'not truncated': {
        'rope_scaling': {**_YARN, _LENGTH: 16, 'truncate': False},
    },
    'a factor of attention': {
        'rope_scaling': {**_YARN, _LENGTH: 16, 'attention_factor': 0.3},
    },
}


@pytest.mark.parametrize('case', _ROPES)
@pytest.mark.parametrize(
    'name', ['llama', 'mistral', 'qwen2', 'qwen3', 'gpt_oss', 'csm', 'moshi']
)
def test_rotary_positions(name, case):
  dropped = {'rope_parameters', 'rope_scaling', 'rope_theta', _LENGTH}
  config = {k: v for k, v in tiny_weights.ALL[name].items() if k not in dropped}
  config |= {'head_dim': 16, 'max_position_embeddings': 128, **_ROPES[case]}
  model = interop.FAMILIES[name].build(config, interop.Options())
  ours = model.decoder.backbone.mixers[0].positions
  cos, sin = ours.rotation(np.array([[3]]), 16)
  config = copy.deepcopy(config)
  theirs = transformers.AutoConfig.for_model(config.pop('model_type'), **config)
  kind = theirs.rope_parameters['rope_type']
  if kind == 'default':
    theta = theirs.rope_parameters['rope_theta']
    radians, scale = theta ** -(torch.arange(0, 16, 2) / 16), 1.0
  else:
    radians, scale = modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind](theirs)
  angles = 3 * radians.double().numpy()
  np.testing.assert_allclose(cos[0, 0, 0], np.cos(angles) * scale, atol=1e-5)
  np.testing.assert_allclose(sin[0, 0, 0], np.sin(angles) * scale, atol=1e-5)
