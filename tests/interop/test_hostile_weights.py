"""Directories of weights that are damaged, lie, or ask for too much."""

import json
import os
import time

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from tests.interop import tiny_weights


@pytest.fixture(name='llama')
def _llama(tmp_path):
  tiny_weights.write(tmp_path / 'weights', 'llama')
  return tmp_path / 'weights'


def _refused(directory, *parts):
  """Loading says all of `parts`, in a clear error."""
  with pytest.raises(interop.PretrainedError) as error:
    interop.load_pretrained(directory)
  for part in parts:
    assert part in str(error.value), str(error.value)


def _configure(directory, **changes):
  path = directory / files.CONFIG
  config = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(config))


def _change(directory, **tensors):
  path = directory / files.WEIGHTS
  stored = safetensors.numpy.load_file(path)
  changed = {k.replace('__', '.'): v for k, v in tensors.items()}
  safetensors.numpy.save_file({**stored, **changed}, path)


def _shard(directory, place):
  """Moves the weights to `place`, as the index says."""
  names = list(safetensors.numpy.load_file(directory / files.WEIGHTS))
  (directory / files.WEIGHTS).rename(directory / place)
  index = {'weight_map': dict.fromkeys(names, place)}
  (directory / files.INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    'content',
    [b'', b'[]', b'null', b'7', b'{"a": ', b'\xff\xfe\x00', b'[' * 100_000],
    ids=['empty', 'list', 'null', 'number', 'cut', 'binary', 'deep'],
)
@pytest.mark.parametrize('name', [files.CONFIG, files.INDEX])
def test_json_that_is_no_object_is_named(name, content, llama):
  if name == files.INDEX:
    _shard(llama, 'a.safetensors')
  (llama / name).write_bytes(content)
  _refused(llama, str(llama / name))


@pytest.mark.parametrize('name', [files.CONFIG, files.WEIGHTS, files.INDEX])
@pytest.mark.parametrize('kind', ['folder', 'pipe', 'dangling'])
def test_what_is_no_file_is_named(kind, name, llama):
  if name == files.INDEX:
    _shard(llama, 'a.safetensors')
  (llama / name).unlink()
  if kind == 'folder':
    (llama / name).mkdir()
  elif kind == 'pipe':
    os.mkfifo(llama / name)
  else:
    (llama / name).symlink_to('nowhere')
  # A link to nowhere is as if it were not there.
  _refused(llama, str(llama) if kind == 'dangling' else str(llama / name))


@pytest.mark.parametrize(
    'index',
    [
        {},
        {'weight_map': None},
        {'weight_map': []},
        {'weight_map': {}},
        {'weight_map': 7},
        {'weight_map': {'a': 7}},
        {'weight_map': {'a': None}},
        {'weight_map': {'a': ''}},
        {'weight_map': {'a': '.'}},
        {'weight_map': {'a': 'folder'}},
        {'weight_map': {'a': 'x' * 5000}},
        {'weight_map': {'a': '\ud800.safetensors'}},
        {'weight_map': {'a': 'a\0.safetensors'}},
    ],
    ids=str,
)
def test_an_index_of_anything_else_is_named(index, llama):
  (llama / files.WEIGHTS).unlink()
  (llama / 'folder').mkdir()
  (llama / files.INDEX).write_text(json.dumps(index))
  _refused(llama, str(llama))


@pytest.mark.parametrize('absolute', [False, True])
def test_shards_elsewhere_are_refused(absolute, llama):
  elsewhere = llama.parent / 'elsewhere.safetensors'
  _shard(llama, str(elsewhere) if absolute else '../elsewhere.safetensors')
  assert elsewhere.exists()
  _refused(llama, files.INDEX, 'elsewhere.safetensors', 'in this directory')


def test_shards_may_be_links(llama):
  """The hub's cache has them so."""
  _shard(llama, 'a.safetensors')
  (llama / 'a.safetensors').rename(llama.parent / 'blob')
  (llama / 'a.safetensors').symlink_to('../blob')
  interop.load_pretrained(llama)


def test_an_index_must_be_right(llama):
  _shard(llama, 'a.safetensors')
  tensors = safetensors.numpy.load_file(llama / 'a.safetensors')
  name = 'model.norm.weight'
  safetensors.numpy.save_file({name: tensors[name]}, llama / 'b.safetensors')
  index = json.loads((llama / files.INDEX).read_text())
  index['weight_map'][name] = 'b.safetensors'
  (llama / files.INDEX).write_text(json.dumps(index))
  _refused(llama, f'{name} is in a.safetensors and in b.safetensors')
  (llama / 'b.safetensors').unlink()
  _refused(llama, 'b.safetensors is missing')
  index['weight_map'] |= {name: 'a.safetensors', 'more': 'a.safetensors'}
  (llama / files.INDEX).write_text(json.dumps(index))
  _refused(llama, 'more: a.safetensors')


def test_what_was_saved_is_read_though_an_index_is_left(llama):
  """transformers too takes the one file."""
  model, variables = interop.load_pretrained(llama)
  _shard(llama, 'a.safetensors')
  other = jax.tree.map(lambda w: w + 1, variables)
  table = other['params']['embedding']['table']
  # Nothing is written of the row that fills.
  table[-1] = 0
  interop.save_pretrained(llama, model, other, 'llama')
  found = interop.load_pretrained(llama)[1]
  jax.tree.map(np.testing.assert_array_equal, found, other)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named(value, llama):
  name = 'model.layers.1.mlp.up_proj.weight'
  weight = safetensors.numpy.load_file(llama / files.WEIGHTS)[name]
  weight[3, 2] = value
  _change(llama, **{name: weight})
  _refused(llama, f'not finite: {name}')


def test_numbers_too_large_for_float32_are_named(llama):
  name = 'model.norm.weight'
  _change(llama, **{name: np.full(8, 1e300)})
  _refused(llama, f'not finite: {name}')
  # As those too large for bfloat16 are, where they are held in it.
  _change(llama, **{name: np.full(8, np.finfo(np.float32).max)})
  with pytest.raises(interop.PretrainedError, match='not finite'):
    interop.load_pretrained(llama, dtype='bfloat16')


@pytest.mark.parametrize(
    'dtype',
    [np.uint8, np.int32, np.int64, bool, ml_dtypes.float8_e4m3fn],
    ids=str,
)
@pytest.mark.parametrize('name', ['dac', 'gpt_oss'])
def test_weights_of_another_type_are_named(name, dtype, tmp_path):
  tiny_weights.write(tmp_path, name)
  tensors = safetensors.numpy.load_file(tmp_path / files.WEIGHTS)
  key = min(tensors)
  _change(tmp_path, **{key: np.ones(tensors[key].shape, dtype)})
  _refused(tmp_path, key)


def test_packed_weights_must_be_bytes(tmp_path):
  sizes = {'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1}
  tiny_weights.write(tmp_path, 'gpt_oss', **sizes)
  tensors = safetensors.numpy.load_file(tmp_path / files.WEIGHTS)
  for name in [n for n in tensors if n.endswith('down_proj')]:
    experts, inputs, outputs = tensors.pop(name).shape
    shape = (experts, outputs, inputs // 32)
    tensors[f'{name}_blocks'] = np.ones((*shape, 16), np.int32)
    tensors[f'{name}_scales'] = np.full(shape, 127, np.uint8)
  safetensors.numpy.save_file(tensors, tmp_path / files.WEIGHTS)
  _refused(tmp_path, 'down_proj_blocks is int32, expected uint8')


def test_weights_that_are_not_finite_are_not_saved(llama, tmp_path):
  model, variables = interop.load_pretrained(llama)
  variables['params']['head']['kernel'][0, 0, 0] = np.nan
  with pytest.raises(interop.PretrainedError, match='head.kernel: not finite'):
    interop.save_pretrained(tmp_path / 'new', model, variables, 'llama')
  assert not (tmp_path / 'new').exists()


# A key of every kind of each family, and what it can not be.
_WRONG = [
    ('llama', 'max_position_embeddings', [None, 'x', 0, -1, 1.5, True]),
    ('llama', 'rms_norm_eps', [-1, None, 'x', float('nan'), 10**400]),
    ('llama', 'num_attention_heads', [None, 0, -1, [], 1.0]),
    ('llama', 'attention_bias', [None, 1, 'true']),
    ('llama', 'bos_token_id', ['x', 1.5, True, []]),
    ('llama', 'eos_token_id', ['x', 1.5, ['x'], {}]),
    ('llama', 'rope_theta', [0, -1, 'x']),
    ('llama', 'rope_scaling', [7, 'x', [], {'rope_type': None}]),
    ('qwen2', 'layer_types', [[], ['full_attention'], ['a', 'b'], 7]),
    ('gpt2', 'activation_function', [None, [], 7]),
    ('gpt2', 'resid_pdrop', [-0.1, 1.5, None]),
    ('gpt_oss', 'num_experts_per_tok', [0, 5, None]),
    ('mamba2', 'time_step_limit', [[], [1], [2, 1], [1, 'x'], None, 7]),
    ('mamba2', 'n_groups', [0, 3]),
    ('dac', 'sampling_rate', [None, 0, -1, 'x', 999, 1_000_001]),
    ('dac', 'downsampling_ratios', [[], 3, None, [0], [1.5], ['x']]),
    ('snac', 'attn_window_size', [0, -1, 'x']),
    ('oobleck', 'channel_multiples', [[], [1, 2], [0]]),
    ('encodec', 'chunk_length_s', [0, -1, 'x', float('inf')]),
    ('encodec', 'overlap', [None, -1, 2]),
    ('encodec', 'target_bandwidths', [[], [0], ['x'], None, [0.1]]),
    ('encodec', 'compress', [0, 3, None]),
    ('encodec', 'norm_type', [None, 'x', []]),
    ('mimi', 'num_semantic_quantizers', [0, 4, None]),
    ('speechtokenizer', 'sample_rate', [None, 0, -1, 'x']),
    ('wavtokenizer', 'decoder_attention_num_groups', [0, 7, None]),
    ('xcodec2', 'quantization_levels', [[], [1], None, 7]),
    ('xcodec2', 'semantic_model_config', [7, [], 'x']),
    ('musicgen', 'decoder', [7, [1], 'x']),
    ('csm', 'bos_token_id', [None, -1, 7, 'x']),
    ('moshi', 'num_codebooks', [0, 1, None, 'x']),
]


@pytest.mark.parametrize(
    ('name', 'key', 'values'), _WRONG, ids=[f'{n}-{k}' for n, k, _ in _WRONG]
)
def test_a_value_that_cannot_be_is_named(name, key, values):
  """No weights are needed to tell."""
  for value in values:
    with pytest.raises(interop_base.PretrainedError) as error:
      config = {**tiny_weights.ALL[name], key: value}
      interop.FAMILIES[name].build(config, interop.Options())
    assert key in str(error.value) and 'config.json' in str(error.value)


# Sizes that would make something of that size: arrays, lists, modules.
_ABSURD = [
    ('llama', 'head_dim'),
    ('llama', 'hidden_size'),
    ('llama', 'num_hidden_layers'),
    ('gpt2', 'n_positions'),
    ('gpt_oss', 'num_local_experts'),
    ('mamba2', 'state_size'),
    ('dac', 'n_codebooks'),
    ('encodec', 'num_residual_layers'),
    ('encodec', 'num_filters'),
    ('mimi', 'num_quantizers'),
    ('mimi', 'head_dim'),
    ('snac', 'codebook_size'),
    ('speechtokenizer', 'n_q'),
    ('wavtokenizer', 'decoder_num_layers'),
    ('xcodec2', 'num_hidden_layers'),
    ('csm', 'num_codebooks'),
    ('csm', 'text_vocab_size'),
    ('moshi', 'num_codebooks'),
]


@pytest.mark.parametrize('name', sorted({name for name, _ in _ABSURD}))
def test_absurd_sizes_are_refused_before_anything_is_made(name, tmp_path):
  tiny_weights.write(tmp_path, name)
  path = tmp_path / files.CONFIG
  config = json.loads(path.read_text())
  for key in [key for n, key in _ABSURD if n == name]:
    path.write_text(json.dumps({**config, key: 10**9}))
    start = time.process_time()
    _refused(tmp_path, f'{key} = 1000000000')
    assert time.process_time() - start < 1.0, key


def test_absurd_strides_are_refused(tmp_path):
  tiny_weights.write(tmp_path, 'xcodec2')
  _configure(tmp_path, downsampling_ratios=[10**6, 10**6])
  _refused(tmp_path, 'downsampling_ratios')


def test_more_layers_than_the_file_has_are_not_traced(llama):
  """Though it has as many tensors."""
  _configure(llama, num_hidden_layers=20)
  start = time.process_time()
  _refused(llama, 'missing: model.layers.19.mlp.up_proj.weight')
  assert time.process_time() - start < 1.0


def test_sizes_that_do_not_go_together_are_refused():
  for name, changes in (
      ('dac', {'upsampling_ratios': [2]}),
      ('llama', {'num_key_value_heads': 4}),
      ('llama', {'head_dim': 5}),
      ('mimi', {'head_dim': 5}),
      ('xcodec2', {'num_key_value_heads': 1}),
      ('musicgen', {'decoder': {'hidden_size': 7, 'num_attention_heads': 2}}),
  ):
    with pytest.raises(interop_base.PretrainedError):
      config = {**tiny_weights.ALL[name], **changes}
      model = interop.FAMILIES[name].build(config, interop.Options())
      interop_base.abstract(model)
