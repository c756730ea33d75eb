"""stable-audio of diffusers, with weights for which each detail shows."""

import json

import diffusers
from diffusers.models import embeddings
from diffusers.pipelines import stable_audio as theirs_lib
import numpy as np
import torch
import transformers

from audiolm_jax import interop
from audiolm_jax.interop import files
from tests.parity import codec_models
from tests.parity import language_models

_TRANSFORMER = {
    'sample_size': 16,
    'in_channels': 6,
    'out_channels': 6,
    'num_layers': 2,
    # Of which 6 are rotated.
    'attention_head_dim': 12,
    'num_attention_heads': 4,
    'num_key_value_attention_heads': 2,
    'cross_attention_dim': 22,
    'time_proj_dim': 14,
    'cross_attention_input_dim': 10,
    'global_states_input_dim': 20,
}
_TEXT = {
    'vocab_size': 40,
    'd_model': 12,
    'd_kv': 5,
    'd_ff': 20,
    'num_layers': 1,
    'num_heads': 2,
    'relative_attention_num_buckets': 8,
    'relative_attention_max_distance': 12,
    'layer_norm_epsilon': 0.03,
}
_VAE = {
    'encoder_hidden_size': 12,
    'downsampling_ratios': [3, 2],
    'channel_multiples': [1, 2],
    'decoder_channels': 3,
    'decoder_input_channels': 6,
    'audio_channels': 2,
    'sampling_rate': 6000,
}
# Rows, frames, ids.
B, F, S = 4, 9, 7
TEXT_LENGTHS = np.array([7, 3, 6, 1])


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _sharpen(model):
  """Weights of the transformer for which each detail shows."""
  generator = torch.Generator().manual_seed(7)
  for name, value in model.named_parameters():
    with torch.no_grad():
      if name.endswith(('to_q.weight', 'to_k.weight')):
        value.mul_(2.5)
      elif name == 'proj_in.weight' or name.startswith(
          ('timestep_proj.2', 'global_proj.2')
      ):
        # The first norm then sees what an epsilon moves.
        value.mul_(0.03)
      elif name == 'time_proj.weight':
        value.copy_(1.5 * torch.randn(value.shape, generator=generator))
  return model


class Case:
  """diffusers' components, where they lie, and our model with variables."""

  def __init__(self, directory, text_width=12, **transformer):
    self.transformer = diffusers.StableAudioDiTModel(
        **{**_TRANSFORMER, **transformer}
    )
    self.projection = theirs_lib.StableAudioProjectionModel(
        text_encoder_dim=text_width,
        conditioning_dim=10,
        min_value=1,
        max_value=50,
    )
    text = transformers.T5Config(**{**_TEXT, 'd_model': text_width})
    self.text = transformers.T5EncoderModel(text)
    self.vae = diffusers.AutoencoderOobleck(**_VAE)
    parts = {
        'transformer': self.transformer,
        'projection_model': self.projection,
        'text_encoder': self.text,
        'vae': self.vae,
    }
    for seed, part in enumerate([self.transformer, self.projection, self.text]):
      language_models.randomise(part, seed)
    _sharpen(self.transformer)
    for i, name in enumerate(['start', 'end']):
      conditioner = getattr(self.projection, f'{name}_number_conditioner')
      turns = conditioner.time_positional_embedding[0].weights
      turns.data.copy_(torch.from_numpy(normal(50 + i, len(turns))))
    codec_models.randomise(self.vae)
    index = {'_class_name': 'StableAudioPipeline'}
    for name, part in parts.items():
      part.save_pretrained(directory / name)
      index[name] = ['library', type(part).__name__]
    (directory / files.PIPELINE).write_text(json.dumps(index))
    self.parts, self.directory = parts, directory
    self.model, self.variables = interop.load_pretrained(directory)
    rng = np.random.default_rng(3)
    self.ids = rng.integers(0, 40, (B, S))
    self.text_mask = np.arange(S) < TEXT_LENGTHS[:, None]

  def rotary(self, frames):
    size = self.transformer.config.attention_head_dim // 2
    return embeddings.get_1d_rotary_pos_embed(
        size, frames + 1, use_real=True, repeat_interleave_real=False
    )

  def expected(self, z, t, cross, row, mask=None, cross_mask=None):
    """Theirs, [B, F, D], from z [B, F, D]."""

    def given(x):
      return None if x is None else torch.from_numpy(np.asarray(x))

    with torch.no_grad():
      return (
          self.transformer(
              given(z.swapaxes(1, 2)),
              given(t),
              encoder_hidden_states=given(cross),
              global_hidden_states=given(row[:, None]),
              rotary_embedding=self.rotary(z.shape[1]),
              attention_mask=given(mask),
              encoder_attention_mask=given(cross_mask),
          )
          .sample.numpy()
          .swapaxes(1, 2)
      )

  def predict(self, model, variables, z, t, lengths, context):
    return model.decoder.apply(
        {'params': variables['params']},
        *(z, t, lengths),
        context=context,
        method='predict',
    )

  def acted(self, model, variables, cross, row):
    acting = {'params': variables['conditions']['acting']}
    return model.conditions.acting.apply(acting, cross, row)
