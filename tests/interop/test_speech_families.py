"""SpeechTokenizer, WavTokenizer and X-Codec-2: configs and names, without torch."""

import jax
import numpy as np
import pytest

from audiolm_jax import interop
from audiolm_jax.interop import base

SPEECHTOKENIZER = {
    'n_filters': 64,
    'strides': [8, 5, 4, 2],
    'dimension': 1024,
    'semantic_dimension': 768,
    'bidirectional': True,
    'dilation_base': 2,
    'residual_kernel_size': 3,
    'n_residual_layers': 1,
    'lstm_layers': 2,
    'activation': 'ELU',
    'n_q': 8,
    'codebook_size': 1024,
    'sample_rate': 16000,
}
WAVTOKENIZER = {
    'model_type': 'wavtokenizer',
    'sampling_rate': 24000,
    'audio_channels': 1,
    'num_filters': 32,
    'upsampling_ratios': [6, 5, 5, 4],
    'num_residual_layers': 1,
    'dilation_growth_rate': 2,
    'compress': 2,
    'use_conv_shortcut': True,
    'use_causal_conv': False,
    'pad_mode': 'reflect',
    'norm_type': 'weight_norm',
    'kernel_size': 7,
    'last_kernel_size': 7,
    'residual_kernel_size': 3,
    'num_lstm_layers': 2,
    'hidden_size': 512,
    'codebook_size': 4096,
    'codebook_dim': 512,
    'decoder_hidden_size': 768,
    'decoder_intermediate_size': 2304,
    'decoder_num_layers': 12,
    'adanorm_num_embeddings': 4,
    'decoder_attention_num_groups': 32,
    'norm_eps': 1e-6,
}
XCODEC2 = {
    'model_type': 'xcodec2',
    'sampling_rate': 16000,
    'encoder_hidden_size': 48,
    'downsampling_ratios': [2, 2, 4, 4, 5],
    'hidden_size': 1024,
    'intermediate_size': 4096,
    'num_hidden_layers': 12,
    'num_attention_heads': 16,
    'num_key_value_heads': 16,
    'head_dim': 64,
    'rms_norm_eps': 1e-6,
    'rope_parameters': {'rope_theta': 10000.0, 'rope_type': 'default'},
    'quantization_dim': 2048,
    'quantization_levels': [4] * 8,
    'semantic_model_config': {
        'model_type': 'wav2vec2-bert',
        'hidden_size': 1024,
        'intermediate_size': 4096,
        'num_hidden_layers': 16,
        'num_attention_heads': 16,
        'conv_depthwise_kernel_size': 31,
        'left_max_position_embeddings': 64,
        'right_max_position_embeddings': 8,
        'layer_norm_eps': 1e-5,
    },
}
# For each: the published config, what shrinks it, frames and bits a second.
FAMILIES = {
    'speechtokenizer': (
        SPEECHTOKENIZER,
        {'n_filters': 2, 'dimension': 6, 'semantic_dimension': 5, 'n_q': 2}
        | {'codebook_size': 4},
        50,
        4000,
    ),
    'wavtokenizer': (
        WAVTOKENIZER,
        {'num_filters': 2, 'hidden_size': 6, 'codebook_dim': 6}
        | {'codebook_size': 4, 'decoder_hidden_size': 64}
        | {'decoder_intermediate_size': 8, 'decoder_num_layers': 1},
        40,
        480,
    ),
    'xcodec2': (
        XCODEC2,
        {'encoder_hidden_size': 1, 'downsampling_ratios': [64, 5]}
        | {'hidden_size': 32, 'intermediate_size': 4, 'num_hidden_layers': 1}
        | {'num_attention_heads': 2, 'num_key_value_heads': 2, 'head_dim': 4}
        | {'quantization_dim': 40}
        | {
            'semantic_model_config': {
                **XCODEC2['semantic_model_config'],
                'hidden_size': 8,
                'intermediate_size': 4,
                'num_hidden_layers': 1,
                'num_attention_heads': 2,
            }
        },
        50,
        800,
    ),
}
each = pytest.mark.parametrize('name', FAMILIES)


def _includes(found, wanted):
  for key, value in wanted.items():
    if isinstance(value, dict):
      _includes(found[key], value)
    else:
      assert found[key] == value, key


@each
def test_published_configs(name):
  config, _, frames, bits = FAMILIES[name]
  recognised = [n for n, f in interop.FAMILIES.items() if f.recognises(config)]
  assert recognised == [name]
  family = interop.FAMILIES[name]
  codec = family.build(config, interop.Options())
  assert codec.spec.frame_rate == frames and not codec.spec.causal
  assert codec.spec.bits_per_second == bits
  _includes(family.config_of(codec), config)


@each
def test_what_was_saved_is_loaded(name, tmp_path):
  published, shrink, _, _ = FAMILIES[name]
  family = interop.FAMILIES[name]
  codec = family.build({**published, **shrink}, interop.Options())
  base.check_complete(family, codec)
  rng = np.random.default_rng(0)

  def draw(path, spec):
    if jax.tree_util.keystr(path).endswith('updates'):
      return np.zeros(spec.shape, spec.dtype)  # It is not stored.
    return rng.standard_normal(spec.shape).astype(spec.dtype)

  variables = jax.tree_util.tree_map_with_path(draw, base.abstract(codec))
  interop.save_pretrained(tmp_path, codec, variables, name)
  loaded, found = interop.load_pretrained(tmp_path)
  assert loaded == codec
  jax.tree.map(
      # Folded weight norm is multiplied out in fp32.
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6),
      found,
      variables,
  )
