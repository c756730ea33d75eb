"""What a config.json says, wherever it says so, and what it does not say."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers import segments
from tests.interop import tiny_weights

_LENGTH = 'original_max_position_embeddings'
_YARN = {'rope_type': 'yarn', 'factor': 8.0}
_LLAMA3 = {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
}
# Families whose attention has scaled rotary positions.
_SCALED = ['llama', 'mistral', 'qwen2', 'qwen3', 'gpt_oss', 'csm', 'moshi']
# Those whose has plain ones only.
_PLAIN = ['mimi', 'xcodec2']


def _built(name, **changes):
  config = {**tiny_weights.ALL[name], **changes}
  for key in [k for k, v in changes.items() if v is Ellipsis]:
    del config[key]
  return interop.FAMILIES[name].build(config, interop.Options())


def _plain(name, **changes):
  """Without the positions of its config."""
  keys = {'rope_parameters', 'rope_scaling', 'rope_theta'}
  without = dict.fromkeys(keys & set(tiny_weights.ALL[name]), ...)
  return _built(name, **{**without, **changes})


def _positions(name, **changes):
  return _plain(name, **changes).decoder.backbone.mixers[0].positions


def _scaling(positions):
  return positions.yarn or positions.llama3


@pytest.mark.parametrize('place', ['rope_scaling', 'rope_parameters'])
@pytest.mark.parametrize('given', [_YARN, _LLAMA3], ids=['yarn', 'llama3'])
@pytest.mark.parametrize('name', _SCALED)
def test_an_original_length_is_read_at_either_level(name, given, place):
  changes = {'max_position_embeddings': 512}
  inner = {place: {**given, _LENGTH: 64}}
  assert _scaling(_positions(name, **changes, **inner)).original_length == 64
  found = _positions(name, **changes, **{place: given, _LENGTH: 64})
  assert _scaling(found).original_length == 64
  # The one beside the object comes first, as in transformers.
  both = _positions(name, **changes, **inner, **{_LENGTH: 128})
  assert _scaling(both).original_length == 128
  neither = _positions(name, **changes, **{place: given})
  assert _scaling(neither).original_length == 512


@pytest.mark.parametrize('name', _SCALED)
def test_a_base_is_read_at_either_level(name):
  old = {'type': 'yarn', 'factor': 4.0}
  for changes in (
      {'rope_theta': 77.0},
      {'rope_theta': 77.0, 'rope_scaling': old},
      {'rope_scaling': {**old, 'rope_theta': 77.0}},
      {'rope_parameters': {'rope_theta': 77.0}, 'rope_theta': 5.0},
  ):
    assert _positions(name, **changes).theta == 77.0, changes


@pytest.mark.parametrize('name', _PLAIN)
def test_positions_of_codecs_are_plain(name):
  for key in ('rope_scaling', 'rope_parameters'):
    with pytest.raises(interop_base.PretrainedError, match=key):
      _plain(name, **{key: {**_YARN, _LENGTH: 64}})
  for changes in (
      {'rope_theta': 77.0},
      {'rope_scaling': {'rope_type': 'default', 'rope_theta': 77.0}},
  ):
    codec = _plain(name, **changes)
    part = getattr(codec.encoder, 'transformer', codec.decoder)
    assert part.rope_theta == 77.0


@pytest.mark.parametrize('name', [*_SCALED, *_PLAIN])
def test_a_share_of_rotated_features_is_refused_at_either_level(name):
  """transformers' models of these families do not rotate a share of them."""
  share = {'partial_rotary_factor': 0.5}
  for changes in (
      {'rope_parameters': {'rope_type': 'default', **share}},
      share,
  ):
    with pytest.raises(
        interop_base.PretrainedError, match='partial_rotary_factor = 0'
    ):
      _plain(name, **changes)
  _built(name, partial_rotary_factor=1.0)


def test_rotated_shares_are_not_saved(tmp_path):
  model = _built('llama')
  mixers = tuple(
      m.clone(positions=m.positions.__class__(theta=50.0, fraction=0.5))
      for m in model.backbone.mixers
  )
  decoder = model.decoder.clone(backbone=model.backbone.clone(mixers=mixers))
  other = model.__class__(decoder, model.positions, model.begin, model.end)
  with pytest.raises(interop.PretrainedError, match='no such model'):
    interop.save_pretrained(tmp_path, other, {}, 'llama')


def test_layers_of_other_kinds_are_refused():
  kinds = ['full_attention', 'chunked_attention']
  with pytest.raises(interop_base.PretrainedError, match='layer_types'):
    _built('qwen3', layer_types=kinds, use_sliding_window=True)
  nested = {'full_attention': {'rope_type': 'default', 'rope_theta': 7.0}}
  with pytest.raises(interop_base.PretrainedError, match='full_attention'):
    _built('qwen3', rope_parameters=nested)


def test_a_factor_of_null_is_that_of_the_lengths():
  given = {'rope_type': 'yarn', 'factor': None, _LENGTH: 64}
  changes = {'rope_parameters': given, 'max_position_embeddings': 512}
  assert _positions('qwen3', **changes).yarn.factor == 8.0


def test_a_factor_below_one_scales_nothing():
  given = {'rope_type': 'yarn', 'factor': 0.5, _LENGTH: 64}
  assert _positions('qwen3', rope_parameters=given).yarn.scale == 1.0


def test_what_is_not_said_is_what_transformers_makes_of_it():
  yarn = _positions('gpt_oss').yarn
  assert (yarn.factor, yarn.original_length, yarn.truncate) == (32, 4096, False)
  assert _positions('gpt_oss', rope_parameters=None).yarn == yarn
  assert _positions('gpt_oss', rope_parameters={}).yarn is None
  windows = {'max_window_layers': ..., 'sliding_window': ...}
  backbone = _built('qwen2', use_sliding_window=False, **windows).backbone
  assert [m.window for m in backbone.mixers] == [None]
  backbone = _built('qwen3', head_dim=...).backbone
  assert backbone.mixers[0].head_width == 128
  backbone = _built('llama', head_dim=..., num_attention_heads=4).backbone
  assert backbone.mixers[0].head_width == 2


def test_dropout_of_dac_may_be_a_flag():
  assert _built('dac', quantizer_dropout=True).bottleneck.dropout == 1.0
  assert _built('dac', quantizer_dropout=0).bottleneck.dropout == 0.0


def test_other_names_of_keys():
  """transformers takes them; a model must not be of another shape."""
  names = {'n_head': ..., 'num_attention_heads': 4}
  assert _built('gpt2', **names).backbone.mixers[0].heads == 4
  with pytest.raises(
      interop_base.PretrainedError, match='num_attention_heads = 4'
  ):
    _built('gpt2', num_attention_heads=4)
  names = {'num_local_experts': ..., 'num_experts': 3}
  assert _built('gpt_oss', **names).backbone.mlp.experts == 3


# -- one tensor under two names -----------------------------------------------

_TIED = {
    'llama': ('model.embed_tokens.weight', 'lm_head.weight'),
    'mistral': ('model.embed_tokens.weight', 'lm_head.weight'),
    'qwen2': ('model.embed_tokens.weight', 'lm_head.weight'),
    'qwen3': ('model.embed_tokens.weight', 'lm_head.weight'),
    'gpt_oss': ('model.embed_tokens.weight', 'lm_head.weight'),
    'gpt2': ('transformer.wte.weight', 'lm_head.weight'),
    'mamba2': ('backbone.embeddings.weight', 'lm_head.weight'),
    'musicgen': (
        'text_encoder.shared.weight',
        'text_encoder.encoder.embed_tokens.weight',
    ),
    'csm': (
        'backbone_model.embed_tokens.embed_audio_tokens.weight',
        'depth_decoder.model.embed_tokens.weight',
    ),
}


@pytest.mark.parametrize('name', ['llama', 'gpt2', 'mamba2'])
def test_a_tied_head_alone_is_loaded(name, tmp_path):
  _check_either(name, tmp_path)


@pytest.mark.parametrize('name', ['csm', 'musicgen'])
def test_a_shared_table_is_loaded_under_either_name(name, tmp_path):
  _check_either(name, tmp_path)


def _check_either(name, directory):
  table, again = _tied(name, directory)
  wanted = interop.load_pretrained(directory)[1]
  path = directory / files.WEIGHTS
  tensors = safetensors.numpy.load_file(path)
  both = {**tensors, again: tensors[table]}
  for given in (
      {k: v for k, v in both.items() if k != table},
      both,
  ):
    safetensors.numpy.save_file(given, path)
    found = interop.load_pretrained(directory)[1]
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_shared_tables_that_differ_are_refused(tmp_path):
  for name in sorted(_TIED):
    table, again = _tied(name, tmp_path / name)
    path = tmp_path / name / files.WEIGHTS
    tensors = safetensors.numpy.load_file(path)
    tensors[again] = tensors[table] + 1
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(
        interop.PretrainedError, match=f'{again} is not {table}'
    ):
      interop.load_pretrained(tmp_path / name)


def _tied(name, directory):
  changes = {'tie_word_embeddings': True} if name != 'csm' else {}
  tiny_weights.write(directory, name, **changes)
  return _TIED[name]


# -- what is written is read back ---------------------------------------------


def _encodec(codebooks, vocabulary, rate, ratios, segment=None):
  sizes = {'filters': 2, 'dimension': 2, 'ratios': ratios, 'lstm_layers': 0}
  return codec_lib.Codec(
      encoder=parts.ENCODERS['seanet'](**sizes),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](
          codebooks=codebooks, vocabulary=vocabulary
      ),
      decoder=parts.DECODERS['seanet'](**sizes),
      sample_rate=rate,
      segment=segment,
  )


def test_no_codebook_of_encodec_is_lost_on_saving():
  """In fp64 n b / 1000 * 1000 // b may be n - 1, of which there are many."""
  family = interop.FAMILIES['encodec']
  for vocabulary in (16, 100, 128, 1000, 1024, 2048):
    for rate, ratios in (
        (24000, (8, 5, 4, 2)),
        (44100, (8, 5, 4, 2)),
        (16000, (8, 5, 4, 4)),
    ):
      for codebooks in (1, 7, 9, 18, 23, 29, 31, 32, 36, 49, 58, 62, 64):
        codec = _encodec(codebooks, vocabulary, rate, ratios)
        config = json.loads(json.dumps(family.config_of(codec)))
        again = family.build(config, interop.Options())
        assert again.bottleneck.codebooks == codebooks


def test_no_sample_of_segments_is_lost_on_saving():
  family = interop.FAMILIES['encodec']
  for size in range(47_990, 48_010):
    for stride in (size, size - 1, 47_520, 100, 1):
      segment = segments.Segments(size, stride)
      codec = _encodec(2, 16, 44_100, (4, 2), segment)
      config = json.loads(json.dumps(family.config_of(codec)))
      assert family.build(config, interop.Options()).segment == segment


_OTHERWISE = {
    'encodec': {'encoder': {'activation': 'snake'}},
    'mimi': {'encoder': {'lstm_layers': 1}},
    'speechtokenizer': {'encoder': {'conv_shortcut': False}},
    'wavtokenizer': {'bottleneck': {'codebooks': 2}},
    'xcodec2': {'decoder': {'groups': 16}},
    'dac': {'bottleneck': {'normalize': False}},
    'snac': {'decoder': {'dilations': (1, 2)}},
    'oobleck': {'whole_frames': {}},
}


@pytest.mark.parametrize('name', sorted(_OTHERWISE))
def test_a_codec_that_a_family_cannot_say_is_not_saved(name, tmp_path):
  codec = _built(name)
  ((part, changes),) = _OTHERWISE[name].items()
  value = False
  if changes:
    value = dataclasses.replace(getattr(codec, part), **changes)
  other = dataclasses.replace(codec, **{part: value})
  with pytest.raises(interop.PretrainedError, match=f'has no such {part}'):
    interop.save_pretrained(tmp_path, other, {}, name)
  assert not list(tmp_path.iterdir())


def test_a_model_of_another_family_is_not_saved(tmp_path):
  for name, family in (
      ('dac', 'encodec'),
      ('encodec', 'mimi'),
      ('llama', 'gpt2'),
      ('gpt2', 'llama'),
      ('mamba2', 'qwen3'),
      ('mimi', 'moshi'),
      ('xcodec2', 'snac'),
      ('musicgen', 'csm'),
  ):
    with pytest.raises(interop.PretrainedError, match=family):
      interop.save_pretrained(tmp_path, _built(name), {}, family)
