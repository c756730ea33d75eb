"""X-Codec-2 as transformers has it (`HKUSTAudio/xcodec2-hf`)."""

import numpy as np

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import dac as dac_names
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.interop import stacks
from audiolm_jax.interop import vocos as vocos_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import xcodec2

# What the code here takes as given, and transformers too where it can say so.
_GIVEN = {'hidden_act': 'silu', 'attention_bias': False}
_SEMANTIC_GIVEN = {
    'model_type': 'wav2vec2-bert',
    'hidden_act': 'swish',
    'position_embeddings_type': 'relative_key',
    'add_adapter': False,
    'use_intermediate_ffn_before_adapter': False,
    'feature_projection_input_dim': 160,
}
_SEMANTIC_DEFAULTS = {
    'hidden_size': 1024,
    'intermediate_size': 4096,
    'num_hidden_layers': 24,
    'num_attention_heads': 16,
    'conv_depthwise_kernel_size': 31,
    'left_max_position_embeddings': 64,
    'right_max_position_embeddings': 8,
    'layer_norm_eps': 1e-5,
}
_SEMANTIC = 'params.encoder.layers_0.branches_0'
_ACOUSTIC = 'params.encoder.layers_0.branches_1'


class Xcodec2(interop_base.Family):
  """`Xcodec2Model`.

  For whole hops transformers' feature extractor adds a frame of silence, which
  `encode` here does not.
  """

  defaults = {
      'sampling_rate': 16000,
      'encoder_hidden_size': 48,
      'downsampling_ratios': (2, 2, 4, 4, 5),
      'hidden_size': 1024,
      'intermediate_size': 4096,
      'num_hidden_layers': 12,
      'num_attention_heads': 16,
      'num_key_value_heads': 16,
      'head_dim': 64,
      'max_position_embeddings': 4096,
      'rms_norm_eps': 1e-6,
      'quantization_dim': 2048,
      'quantization_levels': (4,) * 8,
      # Of a config that says nothing of it; one that does has 24.
      'semantic_model_config': {'num_hidden_layers': 16},
  }

  def recognises(self, config):
    return config.get('model_type') == 'xcodec2'

  def make(self, config, options):
    semantic = config.part('semantic_model_config', _SEMANTIC_DEFAULTS)
    config.require(_GIVEN)
    semantic.require(_SEMANTIC_GIVEN)
    width = config.size('hidden_size')
    shape = stacks.heads(config, width)
    heads = shape['heads']
    if shape['kv_heads'] != heads:
      raise interop_base.PretrainedError('grouped queries are not supported')
    grid = config.wholes('quantization_levels', least=2)
    semantic_width = semantic.size('hidden_size')
    semantic_heads = semantic.size('num_attention_heads')
    if semantic_width % semantic_heads:
      raise semantic.error(
          'num_attention_heads', f'a divisor of {semantic_width}'
      )
    encoder = xcodec2.Xcodec2Encoder(
        width=config.size('encoder_hidden_size'),
        strides=config.wholes('downsampling_ratios'),
        acoustic=width,
        semantic=semantic_width,
        hidden=semantic.size('intermediate_size'),
        layers=semantic.count('num_hidden_layers'),
        heads=semantic_heads,
        kernel=semantic.size('conv_depthwise_kernel_size'),
        left=semantic.size('left_max_position_embeddings'),
        right=semantic.size('right_max_position_embeddings'),
        norm_epsilon=semantic.number('layer_norm_eps', least=0.0),
        grid=grid,
        weight_norm=options.weight_norm,
    )
    config.check_size('downsampling_ratios', 4 * encoder.hop)  # of the head
    decoder = xcodec2.Xcodec2Decoder(
        hop=encoder.hop,
        dimension=len(grid),
        fused=config.size('quantization_dim'),
        width=width,
        hidden=config.size('intermediate_size'),
        layers=config.count('num_hidden_layers'),
        heads=heads,
        head_width=shape['head_width'],
        rope_theta=stacks.rope_theta(config, 10_000.0),
        norm_epsilon=config.number('rms_norm_eps', least=0.0),
    )
    return codec_lib.Codec(
        encoder=encoder,
        bottleneck=bottlenecks.BOTTLENECKS['fsq'](grid=grid, project=False),
        decoder=decoder,
        sample_rate=codecs.sample_rate(config),
        whole_frames=True,
        objective=('GAN', 'Feat', 'Rec'),
        auxiliary=('semantic distillation',),
        domain=('speech',),
    )

  def config_of(self, codec):
    encoder, decoder = codec.encoder, codec.decoder
    config = {
        'model_type': 'xcodec2',
        'architectures': ['Xcodec2Model'],
        'sampling_rate': codec.sample_rate,
        'encoder_hidden_size': encoder.width,
        'downsampling_ratios': list(encoder.strides),
        'hidden_size': decoder.width,
        'intermediate_size': decoder.hidden,
        'num_hidden_layers': decoder.layers,
        'num_attention_heads': decoder.heads,
        'num_key_value_heads': decoder.heads,
        'head_dim': decoder.head_width,
        'rms_norm_eps': decoder.norm_epsilon,
        'rope_parameters': {
            'rope_theta': decoder.rope_theta,
            'rope_type': 'default',
        },
        'quantization_dim': decoder.fused,
        'quantization_levels': list(encoder.grid),
        **_GIVEN,
        'semantic_model_config': {
            'hidden_size': encoder.semantic,
            'output_hidden_size': encoder.semantic,
            'intermediate_size': encoder.hidden,
            'num_hidden_layers': encoder.layers,
            'num_attention_heads': encoder.heads,
            'conv_depthwise_kernel_size': encoder.kernel,
            'left_max_position_embeddings': encoder.left,
            'right_max_position_embeddings': encoder.right,
            'layer_norm_eps': encoder.norm_epsilon,
            **_SEMANTIC_GIVEN,
        },
    }
    return codecs.checked(self, codec, config, encoder.weight_norm)

  def entries(self, codec):
    return [
        *_semantic(codec.encoder),
        *_acoustic(codec.encoder),
        *interop_base.linear('params.encoder.layers_1', 'fc_encoder'),
        *interop_base.linear('params.encoder.layers_2', 'quantizer.project_in'),
        *_decoder(codec.decoder),
    ]

  def constants(self, codec):
    # What training puts at frames that it hides.
    return {
        'semantic_encoder.masked_spec_embed': np.zeros(
            codec.encoder.semantic, np.float32
        )
    }


def _semantic(encoder):
  theirs = 'semantic_encoder.feature_projection'
  entries = seanet_names.norm(f'{_SEMANTIC}.layers_1', f'{theirs}.layer_norm')
  entries += interop_base.linear(
      f'{_SEMANTIC}.layers_2', f'{theirs}.projection'
  )
  for i in range(encoder.layers):
    entries += _conformer_block(
        f'{_SEMANTIC}.layers_3.layers_{i}',
        f'semantic_encoder.encoder.layers.{i}',
    )
  for place, name, bias in (
      ('layers_0', 'conv1', False),
      ('layers_2.body.layers_0', 'conv2', True),
      ('layers_2.body.layers_2', 'conv3', True),
      ('layers_3', 'conv4', False),
  ):
    entries += interop_base.conv(
        f'{_SEMANTIC}.layers_4.{place}', f'semantic_adapter.{name}', bias=bias
    )
  return entries


def _conformer_block(ours, theirs):
  entries = []
  for place, name in (('layers_0', 'ffn1'), ('layers_3', 'ffn2')):
    here = f'{ours}.{place}.body'
    entries += seanet_names.norm(
        f'{here}.layers_0', f'{theirs}.{name}_layer_norm'
    )
    entries += interop_base.linear(
        f'{here}.layers_1', f'{theirs}.{name}.intermediate_dense'
    )
    entries += interop_base.linear(
        f'{here}.layers_3', f'{theirs}.{name}.output_dense'
    )
  here, there = f'{ours}.layers_1.body', f'{theirs}.self_attn'
  entries += seanet_names.norm(f'{here}.layers_0', f'{there}_layer_norm')
  for name, place in (
      ('query', 'linear_q'),
      ('key', 'linear_k'),
      ('value', 'linear_v'),
      ('out', 'linear_out'),
  ):
    entries += interop_base.linear(
        f'{here}.layers_1.{name}', f'{there}.{place}'
    )
  entries.append(
      interop_base.plain(
          f'{here}.layers_1.distances', f'{there}.distance_embedding.weight'
      )
  )
  here, there = f'{ours}.layers_2.body', f'{theirs}.conv_module'
  entries += seanet_names.norm(f'{here}.layers_0', f'{there}.layer_norm')
  entries += interop_base.conv(
      f'{here}.layers_3', f'{there}.depthwise_conv', bias=False
  )
  entries += seanet_names.norm(
      f'{here}.layers_4', f'{there}.depthwise_layer_norm'
  )
  for place, name in (
      ('layers_1', 'pointwise_conv1'),
      ('layers_6', 'pointwise_conv2'),
  ):
    entries.append(
        vocos_names.matrix(f'{here}.{place}.kernel', f'{there}.{name}.weight')
    )
  entries += seanet_names.norm(f'{ours}.layers_4', f'{theirs}.final_layer_norm')
  return entries


def _acoustic(encoder):
  _, layer = encoder.layer.layers[0].branches
  entries = dac_names.walk(
      layer, _ACOUSTIC, 'acoustic_encoder', dac_names.numbered
  )
  return [_factor(e) if e.ours[0].endswith(_FACTORS) else e for e in entries]


_FACTORS = ('.alpha', '.beta')


def _factor(entry):
  """Of an activation, which theirs holds in another module."""
  stem, _, name = entry.layouts[0].theirs[0].rpartition('.')
  return interop_base.plain(entry.ours[0], f'{stem}.act.{name}')


def _decoder(decoder):
  ours, theirs = 'params.decoder', 'acoustic_decoder'
  entries = interop_base.linear(f'{ours}.layers_0', 'quantizer.project_out')
  entries += interop_base.linear(f'{ours}.layers_1', f'{theirs}.fc')
  entries += interop_base.conv(f'{ours}.layers_2', f'{theirs}.embed')
  for place, name in (
      (3, 'prior_net.0'),
      (4, 'prior_net.1'),
      (6, 'post_net.0'),
      (7, 'post_net.1'),
  ):
    entries += vocos_names.residual_convs(
        f'{ours}.layers_{place}', f'{theirs}.{name}'
    )
  for i in range(decoder.layers):
    here, there = f'{ours}.layers_5.block_{i}', f'{theirs}.layers.{i}'
    entries += seanet_names.transformer_matrices(here, there)
    for name, place in (
        ('attention_norm', 'input_layernorm'),
        ('mlp_norm', 'post_attention_layernorm'),
    ):
      entries.append(
          interop_base.plain(f'{here}.{name}.scale', f'{there}.{place}.weight')
      )
  entries += seanet_names.norm(f'{ours}.layers_8', f'{theirs}.norm')
  entries += interop_base.linear(f'{ours}.layers_9', f'{theirs}.head.linear')
  return entries
