"""Language models: configs and names both ways, files of several kinds."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from audiolm_jax import config
from audiolm_jax import interop
from audiolm_jax.models import loading
from audiolm_jax.decoders import starts
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from audiolm_jax.interop import gpt_oss
from tests.interop import tiny_weights

CONFIGS = tiny_weights.LANGUAGE_MODELS


def _made(name, **changes):
  family = interop.FAMILIES[name]
  values = {'model_type': name, **CONFIGS[name], **changes}
  model = family.build(values, interop_base.Options())
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
      lambda s: rng.standard_normal(s.shape).astype(np.float32),
      interop_base.abstract(model),
  )
  # What stands for no id is not in the file.
  table = variables['params']['embedding']['table']
  table[-1] = 0
  return model, variables


def _same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def _rewrite(directory, change):
  path = directory / files.WEIGHTS
  tensors = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(change(tensors), path)


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_what_is_saved_is_loaded(name, tmp_path):
  model, variables = _made(name)
  interop_base.check_complete(interop.FAMILIES[name], model)
  interop.save_pretrained(tmp_path, model, variables, name)
  loaded, found = interop.load_pretrained(tmp_path)
  assert loaded == model
  _same(found, variables)


def test_layers_stacked_to_train_on(tmp_path):
  model, variables = _made('gpt_oss')
  interop.save_pretrained(tmp_path, model, variables, 'gpt_oss')
  scanned, rolled = interop.load_pretrained(tmp_path, scan=True)
  assert scanned.backbone.scan and not model.backbone.scan
  assert jax.tree.map(np.shape, rolled) == jax.tree.map(
      lambda s: s.shape, interop_base.abstract(scanned)
  )
  interop.save_pretrained(tmp_path / 'again', scanned, rolled, 'gpt_oss')
  loaded, found = interop.load_pretrained(tmp_path / 'again')
  assert loaded == model
  _same(found, variables)


def test_half_the_memory(tmp_path):
  model, variables = _made('llama')
  interop.save_pretrained(tmp_path, model, variables, 'llama')
  half, found = interop.load_pretrained(tmp_path, dtype='bfloat16')
  assert half.backbone.dtype == 'bfloat16'
  assert {str(w.dtype) for w in jax.tree.leaves(found)} == {'bfloat16'}
  interop.save_pretrained(tmp_path / 'half', half, found, 'llama')
  again, same = interop.load_pretrained(tmp_path / 'half', dtype='bfloat16')
  assert again == half
  _same(same, found)


def test_windows_go_to_their_layers():
  def windows(name, **changes):
    backbone = _made(name, **changes)[0].backbone
    return [m.window for m in backbone.mixers]

  assert windows('mistral') == [3]
  assert windows('mistral', sliding_window=None) == [None]
  assert windows('qwen2') == [None, 5]
  assert windows('qwen3') == [None]
  assert windows('gpt_oss') == [3, None]
  types = ['full_attention', 'full_attention', 'full_attention']
  assert windows(
      'gpt_oss',
      num_hidden_layers=4,
      layer_types=[*types, 'sliding_attention'],
  ) == [None, None, None, 3]


def test_biases_go_to_their_projections():
  def biases(name, **changes):
    mixer = _made(name, **changes)[0].backbone.mixers[0]
    return mixer.use_bias, mixer.out_bias

  assert biases('llama') == (True, True)
  assert biases('llama', attention_bias=False) == (False, False)
  assert biases('mistral') == (False, False)
  assert biases('qwen2') == (True, False)
  assert biases('gpt_oss') == (True, True)


def test_ids_that_texts_begin_and_end_with():
  # GPT-2's is not in this vocabulary.
  assert _made('gpt2')[0].begin is None
  assert _made('gpt2')[0].end == (5,)
  model, _ = _made('llama')
  assert model.begin == 1 and model.end == (2, 3)


def test_what_generation_begins_and_ends_with_has_the_last_word(tmp_path):
  model, variables = _made('llama')
  interop.save_pretrained(tmp_path, model, variables, 'llama')
  path = tmp_path / files.GENERATION
  for said, begin, end in (
      ({}, 1, (2, 3)),
      ({'eos_token_id': [4, 5, 99]}, 1, (4, 5)),
      ({'eos_token_id': 4, 'bos_token_id': 6}, 6, (4,)),
      ({'eos_token_id': None, 'bos_token_id': None}, None, ()),
  ):
    path.write_text(json.dumps(said))
    loaded, _ = interop.load_pretrained(tmp_path)
    assert (loaded.begin, loaded.end) == (begin, end)
    first = None if begin is None else (begin,)
    assert loaded.decoder.start == starts.Given(first)
  for text in ('[]', '{', '{"eos_token_id": "4"}', '{"eos_token_id": [true]}'):
    path.write_text(text)
    with pytest.raises(
        interop_base.PretrainedError, match='generation_config.json'
    ):
      interop.load_pretrained(tmp_path)


def test_mamba2_must_have_heads_that_fill_its_width():
  with pytest.raises(
      interop_base.PretrainedError, match='8 heads of 2 are not 3 times'
  ):
    _made('mamba2', head_dim=2)
  with pytest.raises(interop_base.PretrainedError, match="hidden_act = 'relu'"):
    _made('mamba2', hidden_act='relu')


def test_names_that_gpt2_has_on_the_hub(tmp_path):
  """No prefix, and causal masks among the weights."""
  model, variables = _made('gpt2')
  interop.save_pretrained(tmp_path, model, variables, 'gpt2')

  def hub(tensors):
    found = {k.removeprefix('transformer.'): v for k, v in tensors.items()}
    found['h.0.attn.bias'] = np.ones((1, 1, 16, 16), np.float32)
    return found

  _rewrite(tmp_path, hub)
  _same(interop.load_pretrained(tmp_path)[1], variables)


def test_a_tied_head_in_the_file_must_be_the_embedding(tmp_path):
  model, variables = _made('qwen3')
  interop.save_pretrained(tmp_path, model, variables, 'qwen3')
  table = 'model.embed_tokens.weight'
  _rewrite(tmp_path, lambda t: {**t, 'lm_head.weight': t[table].copy()})
  _same(interop.load_pretrained(tmp_path)[1], variables)
  _rewrite(tmp_path, lambda t: {**t, 'lm_head.weight': t[table] + 1})
  with pytest.raises(interop.PretrainedError, match='lm_head.weight is not'):
    interop.load_pretrained(tmp_path)


def test_shards(tmp_path):
  model, variables = _made('llama')
  interop.save_pretrained(tmp_path, model, variables, 'llama')
  tensors = safetensors.numpy.load_file(tmp_path / files.WEIGHTS)
  (tmp_path / files.WEIGHTS).unlink()
  index = {}
  for i, name in enumerate(sorted(tensors)):
    index[name] = f'model-{i % 3}.safetensors'
  for file in set(index.values()):
    part = {n: tensors[n] for n in tensors if index[n] == file}
    safetensors.numpy.save_file(part, tmp_path / file)
  (tmp_path / files.INDEX).write_text(json.dumps({'weight_map': index}))
  _same(interop.load_pretrained(tmp_path)[1], variables)


def test_fp4_codes_by_hand():
  # Codes 2 (1.0) and 15 (-6.0) in one byte, the low half first; 2^(129 - 127).
  blocks = np.full((1, 1, 1, 16), 0xF2, np.uint8)
  scales = np.full((1, 1, 1), 129, np.uint8)
  found = gpt_oss.dequantise(blocks, scales)
  assert found.shape == (1, 32, 1)
  np.testing.assert_array_equal(found[0, :, 0], [4.0, -24.0] * 16)
  # Each block has its own scale, each output its own row.
  blocks = np.arange(2 * 2 * 16, dtype=np.uint8).reshape(1, 2, 2, 16)
  scales = np.array([[[127, 128], [126, 120]]], np.uint8)
  found = gpt_oss.dequantise(blocks, scales)
  plain = gpt_oss.dequantise(blocks, np.full_like(scales, 127))
  np.testing.assert_array_equal(found[0, 32:, 0], 2 * plain[0, 32:, 0])
  np.testing.assert_array_equal(found[0, :32, 1], plain[0, :32, 1] / 2)


def test_mxfp4_files_are_dequantised(tmp_path):
  sizes = {'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1}
  model, variables = _made('gpt_oss', **sizes)
  interop.save_pretrained(tmp_path, model, variables, 'gpt_oss')
  rng = np.random.default_rng(0)
  packed = {}

  def quantise(tensors):
    for name in list(tensors):
      if name.endswith(('gate_up_proj', 'down_proj')):
        experts, inputs, outputs = tensors.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        blocks = rng.integers(0, 256, (*shape, 16), np.uint8)
        scales = rng.integers(120, 130, shape, np.uint8)
        packed[name.split('.')[-1]] = gpt_oss.dequantise(blocks, scales)
        tensors |= {f'{name}_blocks': blocks, f'{name}_scales': scales}
    return tensors

  _rewrite(tmp_path, quantise)
  values = json.loads((tmp_path / files.CONFIG).read_text())
  values['quantization_config'] = {'quant_method': 'mxfp4'}
  (tmp_path / files.CONFIG).write_text(json.dumps(values))
  loaded, found = interop.load_pretrained(tmp_path)
  assert loaded == model
  mlp = found['params']['backbone']['layer_0']['mlp']
  np.testing.assert_array_equal(mlp['down'], packed['down_proj'])
  np.testing.assert_array_equal(mlp['gate'], packed['gate_up_proj'][..., ::2])
  np.testing.assert_array_equal(mlp['up'], packed['gate_up_proj'][..., 1::2])


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('llama', {'hidden_act': 'gelu'}, 'hidden_act'),
        ('gpt2', {'activation_function': 'elu'}, 'activation_function'),
        ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by'),
        ('llama', {'rope_scaling': {'type': 'dynamic'}}, "'dynamic'"),
        ('gpt_oss', {'quantization_config': {'quant_method': 'awq'}}, 'awq'),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(name, changes, message):
  with pytest.raises(interop.PretrainedError, match=message):
    _made(name, **changes)


def test_a_model_that_a_family_has_not_is_not_saved(tmp_path):
  model, variables = _made('llama')
  backbone = model.backbone.clone(norm_position='post')
  decoder = model.decoder.clone(backbone=backbone)
  other = dataclasses.replace(model, decoder=decoder)
  with pytest.raises(interop.PretrainedError, match='no such model'):
    interop.save_pretrained(tmp_path, other, variables, 'llama')


def test_a_language_model_is_no_tokenizer(tmp_path):
  model, variables = _made('gpt2')
  interop.save_pretrained(tmp_path, model, variables, 'gpt2')
  with pytest.raises(config.ConfigError, match='TokenLM, not'):
    loading.load_codec(tmp_path)
