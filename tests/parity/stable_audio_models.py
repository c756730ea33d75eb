"""diffusers' stable-audio with weights for which a wrong answer shows."""

import json

import diffusers
from diffusers.models import embeddings
from diffusers.pipelines import stable_audio as theirs_lib
import jax
import numpy as np
import torch
import transformers

from audiolm_jax import interop
from audiolm_jax.interop import files
from audiolm_jax.streaming import testing
from tests.parity import codec_models
from tests.parity import language_models

QUICK = testing.quick_options()
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
B, F, S = 4, 9, 7
TIMES = np.array([0.02, 0.4, 0.97, 1.0], np.float32)
LENGTHS = np.array([9, 5, 1, 7])
TEXT_LENGTHS = np.array([7, 3, 6, 1])
SECONDS = np.array([[0, 9], [3, 3.5], [1.5, 60], [40, 2]], np.float32)


def _normal(seed, *shape):
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
      turns.data.copy_(torch.from_numpy(_normal(50 + i, len(turns))))
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


def inputs(seed=0):
  """(z, what is attended to, the token) before their projections."""
  z, cross, row = (
      _normal(seed, B, F, 6),
      _normal(seed + 1, B, S, 10),
      _normal(seed + 2, B, 20),
  )
  return z, cross, row


def found(case, model, variables, masked):
  """Predictions of `inputs`, and where they count."""
  z, cross, row = inputs()
  lengths = LENGTHS if masked else np.full(B, F)

  @jax.jit(compiler_options=QUICK)
  def run(variables):
    context = case.acted(model, variables, cross, row)
    if masked:
      context['cross_mask'] = case.text_mask
    return case.predict(model, variables, z, TIMES, lengths, context)

  return np.asarray(run(variables)), np.arange(F) < lengths[:, None]


def expected(case, masked):
  """What `found` should be, where it counts."""
  z, cross, row = inputs()
  mask = np.arange(F) < LENGTHS[:, None]
  masks = (mask, case.text_mask) if masked else ()
  return case.expected(z, TIMES, cross, row, *masks)


def their_conditions(case, lengths, seconds):
  """(states to attend to, token) as the pipeline makes them."""
  mask = torch.from_numpy(np.arange(S) < lengths[:, None])
  with torch.no_grad():
    states = case.text(torch.from_numpy(case.ids), mask.long())[0]
    out = case.projection(states, *torch.from_numpy(seconds.T))
  text = out.text_hidden_states * mask[..., None]
  numbers = out.seconds_start_hidden_states, out.seconds_end_hidden_states
  cross = torch.cat([text, *numbers], dim=1)
  return cross, torch.cat(numbers, dim=2)[:, 0]
