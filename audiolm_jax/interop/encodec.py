"""EnCodec as transformers has it: 24 kHz, 48 kHz, and MusicGen's 32 kHz."""

import math

import numpy as np

from audiolm_jax.interop import base
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import segments
from audiolm_jax.tokenizers.parts import seanet

_NORMS = {'weight_norm': 'weight', 'time_group_norm': 'time_group'}
_PADDINGS = {'reflect': 'reflect', 'constant': 'zeros'}


class Encodec(base.Family):
  """`EncodecModel`."""

  def recognises(self, config):
    return config.get('model_type') == 'encodec'

  def build(self, config, options):
    norm = _NORMS[config['norm_type']]
    if norm == 'weight' and not options.weight_norm:
      norm = 'none'
    padding = _PADDINGS[config['pad_mode']]
    causal = config['use_causal_conv']
    if options.streamable and causal:
      padding = 'zeros'
    sizes = {
        **seanet_names.sizes(config),
        'causal': causal,
        'padding': padding,
        'norm': norm,
        'lstm_layers': config['num_lstm_layers'],
    }
    rate = config['sampling_rate']
    segment = None
    if config['chunk_length_s'] is not None:
      size = int(config['chunk_length_s'] * rate)
      stride = max(1, int((1.0 - config['overlap']) * size))
      segment = segments.Segments(size, stride, config['normalize'])
    elif config['normalize']:
      raise base.PretrainedError(
          'normalize = True without chunk_length_s: a gain for a whole file is'
          ' not supported'
      )
    encoder = seanet.SeanetEncoder(**sizes)
    frame_rate = math.ceil(rate / encoder.hop)
    most = max(config['target_bandwidths'])
    bits = math.log2(config['codebook_size'])
    return codec_lib.Codec(
        encoder=encoder,
        bottleneck=bottlenecks.BOTTLENECKS['rvq'](
            # transformers' EncodecConfig.num_quantizers.
            codebooks=int(1000 * most // (frame_rate * bits)),
            vocabulary=config['codebook_size'],
            decay=0.99,
            initial='data',
        ),
        decoder=seanet.SeanetDecoder(**sizes),
        sample_rate=rate,
        segment=segment,
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
    )

  def config_of(self, codec):
    part, rvq = codec.encoder, codec.bottleneck
    size, stride = codec.spec.segment or (None, None)
    rate = codec.sample_rate
    frame_rate = math.ceil(rate / part.hop)
    bits = math.log2(rvq.vocabulary)
    return {
        'model_type': 'encodec',
        'architectures': ['EncodecModel'],
        'sampling_rate': rate,
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
        'use_causal_conv': part.causal,
        'pad_mode': {v: k for k, v in _PADDINGS.items()}[part.padding],
        'norm_type': (
            'time_group_norm' if part.norm == 'time_group' else 'weight_norm'
        ),
        'num_lstm_layers': part.lstm_layers,
        'codebook_size': rvq.vocabulary,
        'codebook_dim': part.dimension,
        'trim_right_ratio': 1.0,
        'normalize': codec.segment is not None and codec.segment.normalize,
        'chunk_length_s': None if size is None else size / rate,
        'overlap': None if size is None else 1 - stride / size,
        # Whole kilobits hide the rounding of the number of codebooks.
        'target_bandwidths': sorted(
            {
                n * frame_rate * bits / 1000
                for n in (2**i for i in range(10))
                if n <= rvq.codebooks
            }
            | {rvq.codebooks * frame_rate * bits / 1000}
        ),
    }

  def entries(self, codec):
    normed = codec.encoder.norm != 'time_group'
    names = seanet_names.Names(stored_normed=normed)
    found = []
    for part in ('encoder', 'decoder'):
      (layers,) = getattr(codec, part).layer.layers
      found += seanet_names.entries(
          layers, f'params.{part}.layers_0', part, names
      )
    books = [
        f'quantizer.layers.{k}.codebook'
        for k in range(codec.bottleneck.codebooks)
    ]
    for ours, theirs in (
        ('codebooks', 'embed'),
        ('counts', 'cluster_size'),
        ('sums', 'embed_avg'),
    ):
      names = [f'{book}.{theirs}' for book in books]
      found.append(base.stacked(f'state.{ours}', names))
    return [*found, base.Entry(('state.updates',))]

  def constants(self, codec):
    return {
        f'quantizer.layers.{k}.codebook.inited': np.ones(1, np.float32)
        for k in range(codec.bottleneck.codebooks)
    }
