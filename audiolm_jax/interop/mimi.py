"""Mimi as transformers has it (`kyutai/mimi`)."""

import numpy as np

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.interop import stacks
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import seanet

# transformers keeps a code's usage above this when it divides by it.
_EPSILON = 1e-5
_GIVEN = {
    'use_causal_conv': True,
    'pad_mode': 'constant',
    'hidden_act': 'gelu',
    'trim_right_ratio': 1.0,
    'attention_bias': False,
}


class Mimi(interop_base.Family):
  """`MimiModel`."""

  defaults = {
      'sampling_rate': 24000,
      'audio_channels': 1,
      'hidden_size': 512,
      'num_filters': 64,
      'num_residual_layers': 1,
      'upsampling_ratios': (8, 6, 5, 4),
      'kernel_size': 7,
      'last_kernel_size': 3,
      'residual_kernel_size': 3,
      'dilation_growth_rate': 2,
      'compress': 2,
      'use_conv_shortcut': False,
      'codebook_size': 2048,
      'num_quantizers': 32,
      'vector_quantization_hidden_dimension': 256,
      'num_semantic_quantizers': 1,
      'upsample_groups': 512,
      'num_hidden_layers': 8,
      'intermediate_size': 2048,
      'num_attention_heads': 8,
      'num_key_value_heads': 8,
      'head_dim': None,
      'max_position_embeddings': 8000,
      'norm_eps': 1e-5,
      'sliding_window': 250,
      'layer_scale_initial_scale': 0.01,
  }

  def recognises(self, config):
    return config.get('model_type') == 'mimi'

  def make(self, config, options):
    width = config.size('hidden_size')
    config.require({**_GIVEN, 'upsample_groups': width})
    transformer = transformer_lib.Transformer(
        layers=config.count('num_hidden_layers'),
        **stacks.heads(config, width),
        mlp_width=config.size('intermediate_size'),
        window=config.whole('sliding_window'),
        rope_theta=stacks.rope_theta(config, 10_000.0),
        activation='gelu',
        norm_epsilon=config.number('norm_eps', least=0.0),
        layer_scale=config.number('layer_scale_initial_scale'),
        use_bias=False,
    )
    sizes = {
        **seanet_names.sizes(config),
        'norm': 'weight' if options.weight_norm else 'none',
        'lstm_layers': 0,
        'transformer': transformer,
        # The only stride of the published model and of transformers' code.
        'resample': 2,
    }
    codebooks = config.count('num_quantizers', least=2)
    semantic = config.whole('num_semantic_quantizers', most=codebooks - 1)
    return codec_lib.Codec(
        encoder=seanet.SeanetEncoder(**sizes),
        bottleneck=bottlenecks.BOTTLENECKS['split_rvq'](
            semantic=semantic,
            acoustic=codebooks - semantic,
            vocabulary=config.size('codebook_size'),
            dimension=config.size('vector_quantization_hidden_dimension'),
        ),
        decoder=seanet.SeanetDecoder(**sizes),
        sample_rate=codecs.sample_rate(config),
        objective=('GAN', 'Feat', 'VQ'),
        auxiliary=('semantic distillation',),
        domain=('speech',),
    )

  def config_of(self, codec):
    part, split = codec.encoder, codec.bottleneck
    transformer = part.transformer
    heads = transformer.heads
    config = {
        **_GIVEN,
        'model_type': 'mimi',
        'architectures': ['MimiModel'],
        'sampling_rate': codec.sample_rate,
        'audio_channels': part.channels,
        'num_filters': part.filters,
        'hidden_size': part.dimension,
        'upsampling_ratios': list(part.ratios),
        'kernel_size': part.kernel,
        'last_kernel_size': part.last_kernel,
        'residual_kernel_size': part.residual_kernel,
        'num_residual_layers': part.residual_layers,
        'dilation_growth_rate': part.dilation_base,
        'compress': part.compress,
        'use_conv_shortcut': part.conv_shortcut,
        'upsample_groups': part.dimension,
        'num_hidden_layers': transformer.layers,
        'num_attention_heads': heads,
        'num_key_value_heads': transformer.kv_heads or heads,
        'head_dim': transformer.head_width or part.dimension // heads,
        'intermediate_size': transformer.mlp_width,
        'sliding_window': transformer.window,
        'rope_parameters': {
            'rope_theta': transformer.rope_theta,
            'rope_type': 'default',
        },
        'norm_eps': transformer.norm_epsilon,
        'layer_scale_initial_scale': transformer.layer_scale,
        'codebook_size': split.vocabulary,
        'codebook_dim': split.dimension,
        'vector_quantization_hidden_dimension': split.dimension,
        'num_quantizers': split.semantic + split.acoustic,
        'num_semantic_quantizers': split.semantic,
    }
    return codecs.checked(self, codec, config, part.norm == 'weight')

  def entries(self, codec):
    names = seanet_names.Names()
    encoder, decoder = (p.layer.layers for p in (codec.encoder, codec.decoder))
    entries = seanet_names.entries(
        encoder[0], 'params.encoder.layers_0', 'encoder', names
    )
    entries += seanet_names.entries(
        decoder[2], 'params.decoder.layers_2', 'decoder', names
    )
    for part in ('encoder', 'decoder'):
      entries += _transformer(
          codec.encoder.transformer,
          f'params.{part}.layers_1',
          f'{part}_transformer',
      )
    entries += interop_base.conv(
        'params.encoder.layers_2', 'downsample.conv', bias=False
    )
    entries += interop_base.conv(
        # One filter a channel: torch's [C, 1, width] is ours [width, 1, C].
        'params.decoder.layers_0',
        'upsample.conv',
        bias=False,
    )
    for name, rvq in codec.bottleneck.parts.items():
      theirs = f'quantizer.{name}_residual_vector_quantizer'
      for ours, side in (('in', 'input_proj'), ('out', 'output_proj')):
        entries.append(
            _projection(f'params.bottleneck.{name}.{ours}', theirs, side)
        )
      entries.append(_codebooks(f'state.{name}', theirs, rvq.codebooks))
      entries.append(interop_base.Entry((f'state.{name}.updates',)))
    return entries

  def constants(self, codec):
    return {
        f'quantizer.{name}_residual_vector_quantizer.layers.{k}.codebook'
        '.initialized': np.ones(1, np.float32)
        for name, rvq in codec.bottleneck.parts.items()
        for k in range(rvq.codebooks)
    }


def _transformer(transformer, ours, theirs):
  entries = []
  for i in range(transformer.layers):
    here, there = f'{ours}.block_{i}', f'{theirs}.layers.{i}'
    entries += seanet_names.transformer_matrices(here, there)
    for name, place in (
        ('attention_norm', 'input_layernorm'),
        ('mlp_norm', 'post_attention_layernorm'),
    ):
      entries += seanet_names.norm(f'{here}.{name}', f'{there}.{place}')
    for name, place in (
        ('attention_scale', 'self_attn_layer_scale'),
        ('mlp_scale', 'mlp_layer_scale'),
    ):
      entries.append(
          interop_base.plain(f'{here}.{name}.scale', f'{there}.{place}.scale')
      )
  return entries


def _projection(ours, theirs, side):
  """A 1x1 convolution [out, in, 1] that ours has as a matrix [in, out]."""
  layout = interop_base.Layout(
      (f'{theirs}.{side}.weight',),
      lambda w: (w[:, :, 0].T,),
      lambda kernel: (kernel.T[:, :, None],),
  )
  return interop_base.Entry((f'{ours}.kernel',), (layout,))


def _codebooks(ours, theirs, count):
  """Codebooks are stored as sums and usage only."""
  books = [f'{theirs}.layers.{k}.codebook' for k in range(count)]

  def load(*arrays):
    sums, usage = np.stack(arrays[:count]), np.stack(arrays[count:])
    return sums / np.maximum(usage, _EPSILON)[..., None], usage, sums

  def save(codebooks, usage, sums):
    del codebooks  # They are sums over usage.
    return (*sums, *usage)

  names = [f'{book}.embed_sum' for book in books]
  names += [f'{book}.cluster_usage' for book in books]
  paths = tuple(f'{ours}.{n}' for n in ('codebooks', 'counts', 'sums'))
  return interop_base.Entry(
      paths, (interop_base.Layout(tuple(names), load, save),)
  )
