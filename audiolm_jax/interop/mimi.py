"""Mimi as transformers has it (`kyutai/mimi`)."""

import numpy as np

from audiolm_jax.interop import base
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.streaming import attention
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import seanet

# transformers keeps a code's usage above this when it divides by it.
_EPSILON = 1e-5


class Mimi(base.Family):
  """`MimiModel`."""

  def recognises(self, config):
    return config.get('model_type') == 'mimi'

  def build(self, config, options):
    rope = config.get('rope_parameters') or {}
    theta = rope.get('rope_theta', config.get('rope_theta', 10_000.0))
    for key, wanted in (
        ('use_causal_conv', True),
        ('pad_mode', 'constant'),
        ('hidden_act', 'gelu'),
        ('trim_right_ratio', 1.0),
        ('upsample_groups', config['hidden_size']),
    ):
      if config.get(key, wanted) != wanted:
        raise base.PretrainedError(
            f'{key} = {config[key]!r} is not supported: only {wanted!r}'
        )
    heads = config['num_attention_heads']
    transformer = attention.Transformer(
        layers=config['num_hidden_layers'],
        heads=heads,
        kv_heads=config.get('num_key_value_heads', heads),
        head_width=config.get('head_dim'),
        mlp_width=config['intermediate_size'],
        window=config['sliding_window'],
        rope_theta=float(theta),
        activation='gelu',
        norm_epsilon=config['norm_eps'],
        layer_scale=config['layer_scale_initial_scale'],
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
    semantic = config['num_semantic_quantizers']
    return codec_lib.Codec(
        encoder=seanet.SeanetEncoder(**sizes),
        bottleneck=bottlenecks.BOTTLENECKS['split_rvq'](
            semantic=semantic,
            acoustic=config['num_quantizers'] - semantic,
            vocabulary=config['codebook_size'],
            dimension=config['vector_quantization_hidden_dimension'],
        ),
        decoder=seanet.SeanetDecoder(**sizes),
        sample_rate=config['sampling_rate'],
        objective=('GAN', 'Feat', 'VQ'),
        auxiliary=('semantic distillation',),
        domain=('speech',),
    )

  def config_of(self, codec):
    part, split = codec.encoder, codec.bottleneck
    transformer = part.transformer
    heads = transformer.heads
    return {
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
        'use_causal_conv': True,
        'pad_mode': 'constant',
        'trim_right_ratio': 1.0,
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
        'hidden_act': 'gelu',
        'norm_eps': transformer.norm_epsilon,
        'layer_scale_initial_scale': transformer.layer_scale,
        'attention_bias': False,
        'codebook_size': split.vocabulary,
        'codebook_dim': split.dimension,
        'vector_quantization_hidden_dimension': split.dimension,
        'num_quantizers': split.semantic + split.acoustic,
        'num_semantic_quantizers': split.semantic,
    }

  def entries(self, codec):
    names = seanet_names.Names()
    encoder, decoder = (p.layer.layers for p in (codec.encoder, codec.decoder))
    found = seanet_names.entries(
        encoder[0], 'params.encoder.layers_0', 'encoder', names
    )
    found += seanet_names.entries(
        decoder[2], 'params.decoder.layers_2', 'decoder', names
    )
    for part in ('encoder', 'decoder'):
      found += _transformer(
          codec.encoder.transformer,
          f'params.{part}.layers_1',
          f'{part}_transformer',
      )
    found += base.conv('params.encoder.layers_2', 'downsample.conv', bias=False)
    found += base.conv(
        # One filter a channel: torch's [C, 1, width] is ours [width, 1, C].
        'params.decoder.layers_0',
        'upsample.conv',
        bias=False,
    )
    for name, rvq in codec.bottleneck.parts.items():
      theirs = f'quantizer.{name}_residual_vector_quantizer'
      for ours, side in (('in', 'input_proj'), ('out', 'output_proj')):
        found.append(
            _projection(f'params.bottleneck.{name}.{ours}', theirs, side)
        )
      found.append(_codebooks(f'state.{name}', theirs, rvq.codebooks))
      found.append(base.Entry((f'state.{name}.updates',)))
    return found

  def constants(self, codec):
    return {
        f'quantizer.{name}_residual_vector_quantizer.layers.{k}.codebook'
        '.initialized': np.ones(1, np.float32)
        for name, rvq in codec.bottleneck.parts.items()
        for k in range(rvq.codebooks)
    }


def _transformer(transformer, ours, theirs):
  found = []
  for i in range(transformer.layers):
    here, there = f'{ours}.block_{i}', f'{theirs}.layers.{i}'
    found += seanet_names.transformer_matrices(here, there)
    for name, place in (
        ('attention_norm', 'input_layernorm'),
        ('mlp_norm', 'post_attention_layernorm'),
    ):
      found += seanet_names.norm(f'{here}.{name}', f'{there}.{place}')
    for name, place in (
        ('attention_scale', 'self_attn_layer_scale'),
        ('mlp_scale', 'mlp_layer_scale'),
    ):
      found.append(base.plain(f'{here}.{name}.scale', f'{there}.{place}.scale'))
  return found


def _projection(ours, theirs, side):
  """A 1x1 convolution [out, in, 1] that ours has as a matrix [in, out]."""
  layout = base.Layout(
      (f'{theirs}.{side}.weight',),
      lambda w: (w[:, :, 0].T,),
      lambda kernel: (kernel.T[:, :, None],),
  )
  return base.Entry((f'{ours}.kernel',), (layout,))


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
  return base.Entry(paths, (base.Layout(tuple(names), load, save),))
