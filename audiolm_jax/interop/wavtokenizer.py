"""WavTokenizer as transformers has it."""

import numpy as np

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.interop import vocos as vocos_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import seanet
from audiolm_jax.tokenizers.parts import vocos

_PADDINGS = {'reflect': 'reflect', 'constant': 'zeros'}
_BOOK = 'encoder_model.quantizer.codebook'
# The order of the positional net in transformers' list.
_CONVS, _ATTENTION, _NORM = (0, 1, 3, 4), 2, 5


class WavTokenizer(interop_base.Family):
  """`WavTokenizerModel`."""

  defaults = {
      'sampling_rate': 24000,
      'audio_channels': 1,
      'num_filters': 32,
      'upsampling_ratios': (6, 5, 5, 4),
      'num_residual_layers': 1,
      'dilation_growth_rate': 2,
      'compress': 2,
      'use_conv_shortcut': True,
      'use_causal_conv': False,
      'pad_mode': 'reflect',
      'kernel_size': 7,
      'last_kernel_size': 7,
      'residual_kernel_size': 3,
      'num_lstm_layers': 2,
      'hidden_size': 512,
      'codebook_size': 4096,
      'decoder_hidden_size': 768,
      'decoder_intermediate_size': 2304,
      'decoder_num_layers': 12,
      'adanorm_num_embeddings': 4,
      'decoder_attention_num_groups': 32,
      'norm_eps': 1e-6,
  }

  def recognises(self, config):
    return config.get('model_type') == 'wavtokenizer'

  def make(self, config, options):
    config.require({'norm_type': 'weight_norm'})
    encoder = seanet.SeanetEncoder(
        **seanet_names.sizes(config),
        causal=config.flag('use_causal_conv'),
        padding=config.choice('pad_mode', _PADDINGS),
        norm='weight' if options.weight_norm else 'none',
        lstm_layers=config.count('num_lstm_layers', least=0),
    )
    config.check_size('upsampling_ratios', 4 * encoder.hop)  # of the head
    width = config.size('decoder_hidden_size')
    groups = config.size('decoder_attention_num_groups')
    if width % groups:
      raise config.error(
          'decoder_attention_num_groups', f'a divisor of {width}'
      )
    decoder = vocos.VocosDecoder(
        hop=encoder.hop,
        size=4 * encoder.hop,
        dimension=encoder.dimension,
        width=width,
        hidden=config.size('decoder_intermediate_size'),
        blocks=config.count('decoder_num_layers'),
        norm_epsilon=config.number('norm_eps', least=0.0),
        prior='attention',
        groups=groups,
        conditions=config.size('adanorm_num_embeddings'),
    )
    return codec_lib.Codec(
        encoder=encoder,
        bottleneck=bottlenecks.BOTTLENECKS['rvq'](
            codebooks=1,
            vocabulary=config.size('codebook_size'),
            decay=0.99,
            dropout=0.0,
        ),
        decoder=decoder,
        sample_rate=codecs.sample_rate(config),
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
    )

  def config_of(self, codec):
    part, decoder = codec.encoder, codec.decoder
    config = {
        'model_type': 'wavtokenizer',
        'architectures': ['WavTokenizerModel'],
        'sampling_rate': codec.sample_rate,
        'audio_channels': part.channels,
        'num_filters': part.filters,
        'upsampling_ratios': list(part.ratios),
        'num_residual_layers': part.residual_layers,
        'dilation_growth_rate': part.dilation_base,
        'compress': part.compress,
        'use_conv_shortcut': part.conv_shortcut,
        'use_causal_conv': part.causal,
        'pad_mode': {v: k for k, v in _PADDINGS.items()}[part.padding],
        'norm_type': 'weight_norm',
        'kernel_size': part.kernel,
        'last_kernel_size': part.last_kernel,
        'residual_kernel_size': part.residual_kernel,
        'num_lstm_layers': part.lstm_layers,
        'hidden_size': part.dimension,
        'codebook_size': codec.bottleneck.vocabulary,
        'codebook_dim': part.dimension,
        'decoder_hidden_size': decoder.width,
        'decoder_intermediate_size': decoder.hidden,
        'decoder_num_layers': decoder.blocks,
        'adanorm_num_embeddings': decoder.conditions,
        'decoder_attention_num_groups': decoder.groups,
        'norm_eps': decoder.norm_epsilon,
    }
    return codecs.checked(self, codec, config, part.norm == 'weight')

  def entries(self, codec):
    (layers,) = codec.encoder.layer.layers
    entries = seanet_names.entries(
        layers,
        'params.encoder.layers_0',
        'encoder_model.encoder',
        seanet_names.Names(stored_normed=True),
    )
    ours, net = 'params.decoder', 'backbone.pos_net'
    entries += interop_base.conv(f'{ours}.layers_0', 'backbone.embed')
    for i in _CONVS:
      entries += vocos_names.residual_convs(
          f'{ours}.layers_1.layers_{i}', f'{net}.{i}'
      )
    attend = f'{ours}.layers_1.layers_{_ATTENTION}.body'
    entries += seanet_names.norm(
        f'{attend}.layers_0', f'{net}.{_ATTENTION}.norm'
    )
    entries += vocos_names.attention(
        f'{attend}.layers_1', f'{net}.{_ATTENTION}', ('q', 'k', 'v', 'proj_out')
    )
    entries += seanet_names.norm(
        f'{ours}.layers_1.layers_{_NORM}', f'{net}.{_NORM}'
    )
    entries += vocos_names.conditional_norm(f'{ours}.layers_2', 'backbone.norm')
    entries += vocos_names.convnext(
        codec.decoder.layer.layers[3], f'{ours}.layers_3', 'backbone.convnext'
    )
    entries += seanet_names.norm(
        f'{ours}.layers_4', 'backbone.final_layer_norm'
    )
    entries += interop_base.linear(f'{ours}.layers_5', 'head.linear')
    for mine, theirs in (
        ('codebooks', 'embed'),
        ('counts', 'cluster_size'),
        ('sums', 'embed_avg'),
    ):
      entries.append(
          interop_base.stacked(f'state.{mine}', [f'{_BOOK}.{theirs}'])
      )
    return [*entries, interop_base.Entry(('state.updates',))]

  def constants(self, codec):
    return {f'{_BOOK}.inited': np.ones(1, np.float32)}
