"""Heads of transformers with weights for which a wrong answer shows."""

import numpy as np
import torch

M, WIDTH, LATENT = 6, 8, 3
VIBEVOICE = {
    'num_hidden_layers': 2,
    'intermediate_size': 14,
    'frequency_embedding_size': 10,
    # Others than by default.
    'rms_norm_eps': 0.05,
    'diffusion_max_period': 300,
}
_AUDIO = {
    'channels': 1,
    'hidden_size': LATENT,
    'kernel_size': 5,
    'num_filters': 2,
    'downsampling_ratios': [2],
    'depths': [1, 1],
    'ffn_expansion': 2,
}
_NAME = 'vibevoice_acoustic_tokenizer'


def vibevoice_config():
  """The arguments of a small VibeVoiceConfig."""
  return {
      'text_config': {
          'model_type': 'qwen2',
          'vocab_size': 11,
          'hidden_size': WIDTH,
          'intermediate_size': 6,
          'num_hidden_layers': 1,
          'num_attention_heads': 2,
          'num_key_value_heads': 1,
      },
      'audio_config': {'model_type': _NAME, **_AUDIO},
      'semantic_model_config': {'model_type': f'{_NAME}_encoder', **_AUDIO},
      'diffusion_head_config': dict(VIBEVOICE),
      'pad_token_id': 0,
      'eos_token_id': 0,
      'audio_bos_token_id': 1,
      'audio_eos_token_id': 2,
      'audio_token_id': 3,
  }


def sharpen(module, seed=0):
  """Weights so large that what each of them does shows."""
  generator = torch.Generator().manual_seed(seed)
  for name, value in module.named_parameters():
    noise = torch.randn(value.shape, generator=generator)
    with torch.no_grad():
      if value.ndim > 1:
        value.copy_(1.2 * noise * value.shape[-1] ** -0.5)
      else:
        value.copy_(0.4 * noise + (0 if name.endswith('bias') else 0.9))
  return module.eval()


def inputs(seed=1):
  """(noisy latents [M, L], h [M, D]), of which some are near 0."""
  rng = np.random.default_rng(seed)
  z = rng.standard_normal((M, LATENT), np.float32)
  # Norms then see what an epsilon moves.
  z[::2] *= 0.1
  return z, rng.standard_normal((M, WIDTH), np.float32)
