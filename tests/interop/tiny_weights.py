"""A small config.json of every family, and weights for it."""

import pathlib
from typing import Any

import jax
import numpy as np

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files

_DAC = {
    'model_type': 'dac',
    'sampling_rate': 16000,
    'encoder_hidden_size': 2,
    'downsampling_ratios': [3],
    'decoder_hidden_size': 8,
    'n_codebooks': 2,
    'codebook_size': 4,
    'codebook_dim': 3,
    'quantizer_dropout': 0.0,
    'commitment_loss_weight': 0.25,
    'codebook_loss_weight': 1.0,
}
_OOBLECK = {
    '_class_name': 'AutoencoderOobleck',
    'encoder_hidden_size': 4,
    'downsampling_ratios': [3],
    'channel_multiples': [2],
    'decoder_channels': 3,
    'decoder_input_channels': 2,
    'audio_channels': 2,
    'sampling_rate': 44100,
}
_SNAC = {
    'sampling_rate': 44100,
    'encoder_dim': 32,
    'encoder_rates': [3],
    'latent_dim': None,
    'decoder_dim': 64,
    'decoder_rates': [3],
    'attn_window_size': 6,
    'codebook_size': 4,
    'codebook_dim': 3,
    'vq_strides': [4, 2, 1],
    'noise': True,
    'depthwise': True,
}
_VIBEVOICE = {
    'model_type': 'vibevoice_acoustic_tokenizer',
    'channels': 1,
    'hidden_size': 3,
    'kernel_size': 5,
    'rms_norm_eps': 1e-3,
    'layer_scale_init_value': 0.5,
    'num_filters': 2,
    'downsampling_ratios': [2, 3],
    'depths': [1, 2, 1],
    'ffn_expansion': 2,
    'vae_std': 0.25,
}
DAC_FAMILIES = {'dac': _DAC, 'oobleck': _OOBLECK, 'snac': _SNAC}
_LLAMA = {
    'vocab_size': 7,
    'hidden_size': 8,
    'intermediate_size': 6,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'head_dim': 6,
    'max_position_embeddings': 64,
    'rms_norm_eps': 1e-4,
    'bos_token_id': 1,
    'eos_token_id': [2, 3],
}
YARN = {
    'rope_type': 'yarn',
    'rope_theta': 500.0,
    'factor': 4.0,
    'original_max_position_embeddings': 16,
    'truncate': False,
}
LANGUAGE_MODELS = {
    'gpt2': {
        'vocab_size': 7,
        'n_embd': 8,
        'n_layer': 2,
        'n_head': 2,
        'n_positions': 16,
        'layer_norm_epsilon': 1e-4,
        'eos_token_id': 5,
        'bos_token_id': 50256,
    },
    'llama': {
        **_LLAMA,
        'attention_bias': True,
        'mlp_bias': True,
        'rope_theta': 300.0,
        'rope_scaling': {
            'rope_type': 'llama3',
            'factor': 8.0,
            'low_freq_factor': 1.0,
            'high_freq_factor': 4.0,
            'original_max_position_embeddings': 32,
        },
    },
    'mistral': {**_LLAMA, 'sliding_window': 3},
    'qwen2': {
        **_LLAMA,
        'use_sliding_window': True,
        'sliding_window': 5,
        'max_window_layers': 1,
    },
    'qwen3': {
        **_LLAMA,
        'use_sliding_window': False,
        'sliding_window': 5,
        'max_window_layers': 1,
        'tie_word_embeddings': True,
        'rope_parameters': YARN,
    },
    'mamba2': {
        'vocab_size': 7,
        'hidden_size': 8,
        'num_hidden_layers': 2,
        'num_heads': 8,
        'head_dim': 3,
        'expand': 3,
        'state_size': 5,
        'n_groups': 2,
        'conv_kernel': 3,
        'chunk_size': 16,
        'use_bias': True,
        'use_conv_bias': True,
        'layer_norm_epsilon': 1e-4,
        'time_step_min': 2e-3,
        'time_step_max': 0.2,
        # As transformers spells infinity.
        'time_step_limit': [0.01, {'__float__': 'Infinity'}],
        'eos_token_id': 0,
    },
    'gpt_oss': {
        **_LLAMA,
        'num_hidden_layers': 4,
        'num_local_experts': 4,
        'num_experts_per_tok': 2,
        'sliding_window': 3,
        'rope_parameters': YARN,
    },
}
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
SPEECH_FAMILIES = {
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

ENCODEC = {
    'model_type': 'encodec',
    'sampling_rate': 16000,
    'num_filters': 2,
    'hidden_size': 6,
    'upsampling_ratios': [4, 2],
    'num_lstm_layers': 1,
    'codebook_size': 16,
    # Four codebooks.
    'target_bandwidths': [16.0, 32.0],
    'chunk_length_s': 1.0,
    'overlap': 0.01,
    'normalize': True,
}
MIMI = {
    'model_type': 'mimi',
    'num_filters': 2,
    'hidden_size': 8,
    'upsampling_ratios': [3, 2],
    'codebook_size': 8,
    'codebook_dim': 4,
    'vector_quantization_hidden_dimension': 4,
    'num_quantizers': 4,
    'num_hidden_layers': 1,
    'num_attention_heads': 1,
    'num_key_value_heads': 1,
    'head_dim': 8,
    'intermediate_size': 12,
    'upsample_groups': 8,
    'sliding_window': 5,
}
_MUSICGEN = {
    'text_encoder': {
        'model_type': 't5',
        'vocab_size': 9,
        'd_model': 8,
        'd_kv': 6,
        'd_ff': 10,
        'num_layers': 1,
        'num_heads': 2,
        'relative_attention_num_buckets': 8,
        'relative_attention_max_distance': 12,
        'layer_norm_epsilon': 1e-5,
    },
    'audio_encoder': {
        **ENCODEC,
        'chunk_length_s': None,
        'normalize': False,
    },
    'decoder': {
        'vocab_size': 16,
        'hidden_size': 12,
        'ffn_dim': 10,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'num_codebooks': 4,
    },
}
_CSM = {
    'num_codebooks': 4,
    'vocab_size': 11,
    'text_vocab_size': 7,
    'hidden_size': 8,
    'intermediate_size': 6,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'head_dim': 6,
    'max_position_embeddings': 64,
    'bos_token_id': 3,
    'rms_norm_eps': 1e-4,
    'rope_parameters': {**YARN, 'rope_type': 'yarn'},
    'depth_decoder_config': {
        'num_codebooks': 4,
        'vocab_size': 11,
        'backbone_hidden_size': 8,
        'hidden_size': 12,
        'intermediate_size': 10,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'num_key_value_heads': 1,
        'rms_norm_eps': 1e-3,
    },
    'codec_config': MIMI,
}
_MOSHI = {
    'vocab_size': 9,
    'audio_vocab_size': 8,
    'num_codebooks': 3,
    'hidden_size': 8,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'head_dim': 6,
    'ffn_dim': 12,
    'rms_norm_eps': 1e-4,
    'sliding_window': 20,
    'max_position_embeddings': 20,
    'depth_decoder_config': {
        'vocab_size': 9,
        'audio_vocab_size': 8,
        'num_codebooks': 3,
        'input_size': 8,
        'hidden_size': 12,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'num_key_value_heads': 1,
        'ffn_dim': 20,
        'rms_norm_eps': 1e-3,
    },
    'audio_encoder_config': MIMI,
}
_POCKET_TTS = {
    'vocab_size': 13,
    'hidden_size': 8,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'head_dim': 6,
    'intermediate_size': 10,
    'layer_norm_eps': 0.02,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 50.0},
    'latent_dim': 3,
    'pad_token_id': 0,
    'audio_prompt_token_id': 9,
    'audio_latent_token_id': 10,
    'audio_prompt_bos_token_id': 11,
    'audio_bos_token_id': 12,
    'lsd_diagonal_weight': 0.5,
    'flow_head_config': {
        'hidden_size': 7,
        'num_hidden_layers': 2,
        'latent_dim': 3,
        'condition_dim': 8,
        'frequency_embedding_size': 10,
        'layer_norm_eps': 0.03,
        'rms_norm_eps': 0.05,
        'max_period': 60.0,
    },
}
# Name of `interop.FAMILIES` -> a config.json.
ALL = {
    **DAC_FAMILIES,
    'vibevoice_acoustic_tokenizer': _VIBEVOICE,
    'encodec': ENCODEC,
    'mimi': MIMI,
    **{
        name: {**published, **shrink}
        for name, (published, shrink, _, _) in SPEECH_FAMILIES.items()
    },
    **{n: {'model_type': n, **c} for n, c in LANGUAGE_MODELS.items()},
    'musicgen': {'model_type': 'musicgen', **_MUSICGEN},
    'csm': {'model_type': 'csm', **_CSM},
    'moshi': {'model_type': 'moshi', **_MOSHI},
    'pocket_tts': {'model_type': 'pocket_tts', **_POCKET_TTS},
}


# As `files.scan` gives those of folders with a folder for each component.
PIPELINES = {
    'stable_audio': {
        '_class_name': 'StableAudioPipeline',
        'transformer': {
            '_class_name': 'StableAudioDiTModel',
            # As the published one has it.
            'sample_size': 8.0,
            'in_channels': 2,
            'out_channels': 2,
            'num_layers': 1,
            'attention_head_dim': 4,
            'num_attention_heads': 4,
            'num_key_value_attention_heads': 2,
            'cross_attention_dim': 5,
            'time_proj_dim': 6,
            'global_states_input_dim': 12,
            'cross_attention_input_dim': 6,
        },
        'projection_model': {
            '_class_name': 'StableAudioProjectionModel',
            'text_encoder_dim': 8,
            'conditioning_dim': 6,
            'min_value': 0,
            'max_value': 512,
        },
        'text_encoder': {
            'model_type': 't5',
            'architectures': ['T5EncoderModel'],
            'vocab_size': 11,
            'd_model': 8,
            'd_kv': 3,
            'd_ff': 4,
            'num_layers': 1,
            'num_heads': 2,
        },
        'vae': _OOBLECK,
    }
}


def write(directory: pathlib.Path, name: str, **changes: Any) -> None:
  """Makes a directory of weights, all numbers random.

  Args:
    directory: to write to.
    name: of a family.
    **changes: of its config.
  """
  family = interop.FAMILIES[name]
  config = {**{**ALL, **PIPELINES}[name], **changes}
  model = family.build(config, interop.Options())
  zeros = jax.tree.map(
      lambda s: np.zeros(s.shape, s.dtype), interop_base.abstract(model)
  )
  rng = np.random.default_rng(0)
  tensors = {
      key: rng.standard_normal(value.shape).astype(value.dtype)
      for key, value in interop_base.save(family, model, zeros).items()
  }
  tensors |= family.constants(model)
  files.write(directory, config, tensors)
