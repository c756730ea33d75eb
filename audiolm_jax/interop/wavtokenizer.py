"""WavTokenizer as transformers has it."""

import numpy as np

from audiolm_jax.interop import base
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


class WavTokenizer(base.Family):
  """`WavTokenizerModel`."""

  def recognises(self, config):
    return config.get('model_type') == 'wavtokenizer'

  def build(self, config, options):
    if config['norm_type'] != 'weight_norm':
      raise base.PretrainedError(
          f'norm_type = {config["norm_type"]!r} is not supported: only'
          " 'weight_norm'"
      )
    encoder = seanet.SeanetEncoder(
        channels=config['audio_channels'],
        filters=config['num_filters'],
        dimension=config['hidden_size'],
        ratios=tuple(config['upsampling_ratios']),
        kernel=config['kernel_size'],
        last_kernel=config['last_kernel_size'],
        residual_kernel=config['residual_kernel_size'],
        residual_layers=config['num_residual_layers'],
        dilation_base=config['dilation_growth_rate'],
        compress=config['compress'],
        conv_shortcut=config['use_conv_shortcut'],
        causal=config['use_causal_conv'],
        padding=_PADDINGS[config['pad_mode']],
        norm='weight' if options.weight_norm else 'none',
        lstm_layers=config['num_lstm_layers'],
    )
    decoder = vocos.VocosDecoder(
        hop=encoder.hop,
        size=4 * encoder.hop,
        dimension=config['hidden_size'],
        width=config['decoder_hidden_size'],
        hidden=config['decoder_intermediate_size'],
        blocks=config['decoder_num_layers'],
        norm_epsilon=config['norm_eps'],
        prior='attention',
        groups=config['decoder_attention_num_groups'],
        conditions=config['adanorm_num_embeddings'],
    )
    return codec_lib.Codec(
        encoder=encoder,
        bottleneck=bottlenecks.BOTTLENECKS['rvq'](
            codebooks=1,
            vocabulary=config['codebook_size'],
            decay=0.99,
            dropout=0.0,
        ),
        decoder=decoder,
        sample_rate=config['sampling_rate'],
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
    )

  def config_of(self, codec):
    part, decoder = codec.encoder, codec.decoder
    return {
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

  def entries(self, codec):
    (layers,) = codec.encoder.layer.layers
    found = seanet_names.entries(
        layers,
        'params.encoder.layers_0',
        'encoder_model.encoder',
        seanet_names.Names(stored_normed=True),
    )
    ours, net = 'params.decoder', 'backbone.pos_net'
    found += base.conv(f'{ours}.layers_0', 'backbone.embed')
    for i in _CONVS:
      found += vocos_names.residual_convs(
          f'{ours}.layers_1.layers_{i}', f'{net}.{i}'
      )
    attend = f'{ours}.layers_1.layers_{_ATTENTION}.body'
    found += seanet_names.norm(f'{attend}.layers_0', f'{net}.{_ATTENTION}.norm')
    found += vocos_names.attention(
        f'{attend}.layers_1', f'{net}.{_ATTENTION}', ('q', 'k', 'v', 'proj_out')
    )
    found += seanet_names.norm(
        f'{ours}.layers_1.layers_{_NORM}', f'{net}.{_NORM}'
    )
    found += vocos_names.conditional_norm(f'{ours}.layers_2', 'backbone.norm')
    found += vocos_names.convnext(
        codec.decoder.layer.layers[3], f'{ours}.layers_3', 'backbone.convnext'
    )
    found += seanet_names.norm(f'{ours}.layers_4', 'backbone.final_layer_norm')
    found += base.linear(f'{ours}.layers_5', 'head.linear')
    for mine, theirs in (
        ('codebooks', 'embed'),
        ('counts', 'cluster_size'),
        ('sums', 'embed_avg'),
    ):
      found.append(base.stacked(f'state.{mine}', [f'{_BOOK}.{theirs}']))
    return [*found, base.Entry(('state.updates',))]

  def constants(self, codec):
    return {f'{_BOOK}.inited': np.ones(1, np.float32)}
