"""SNAC as its own package has it (`hubertsiuzdak/snac_24khz`, 32 and 44 kHz).

Its files are torch's; `safetensors.torch.save_file(model.state_dict(), ...)`
beside its config.json makes what is read here.
"""

import numpy as np

from audiolm_jax import streaming
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import dac as dac_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import snac


class Snac(interop_base.Family):
  """`snac.SNAC`; its config.json has no name, but alone has `vq_strides`."""

  defaults = {
      'sampling_rate': 44100,
      'encoder_dim': 64,
      'encoder_rates': (3, 3, 7, 7),
      'latent_dim': None,
      'decoder_dim': 1536,
      'decoder_rates': (7, 7, 3, 3),
      'attn_window_size': 32,
      'codebook_size': 4096,
      'codebook_dim': 8,
      'noise': True,
      'depthwise': True,
  }

  def recognises(self, config):
    return 'vq_strides' in config

  def make(self, config, options):
    down, up = config.wholes('encoder_rates'), config.wholes('decoder_rates')
    first, last = config.size('encoder_dim'), config.size('decoder_dim')
    if last >> len(up) == 0:
      raise config.error('decoder_dim', f'at least {1 << len(up)}')
    config.check_size('encoder_dim', first << len(down))
    window = config.whole('attn_window_size', most=65536, null=True)
    sizes = {
        'dimension': config.size('latent_dim', null=True) or first << len(down),
        'attention_window': window,
        'depthwise': config.flag('depthwise'),
        'weight_norm': options.weight_norm,
    }
    return codec_lib.Codec(
        encoder=snac.SnacEncoder(
            widths=tuple(first << i for i in range(len(down) + 1)),
            strides=down,
            **sizes,
        ),
        bottleneck=bottlenecks.BOTTLENECKS['multi_rate_rvq'](
            strides=config.wholes('vq_strides'),
            vocabulary=config.size('codebook_size'),
            dimension=config.size('codebook_dim'),
            weight_norm=options.weight_norm,
            # Clips are padded to whole windows of the attention.
            multiple=window or 1,
        ),
        decoder=snac.SnacDecoder(
            widths=tuple(last >> i for i in range(len(up) + 1)),
            strides=up,
            noise=config.flag('noise'),
            **sizes,
        ),
        sample_rate=codecs.sample_rate(config),
        whole_frames=True,
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
    )

  def config_of(self, codec):
    encoder, decoder = codec.encoder, codec.decoder
    rvq = codec.bottleneck
    config = {
        'sampling_rate': codec.sample_rate,
        'encoder_dim': encoder.widths[0],
        'encoder_rates': list(encoder.strides),
        'latent_dim': encoder.dimension,
        'decoder_dim': decoder.widths[0],
        'decoder_rates': list(decoder.strides),
        'attn_window_size': encoder.attention_window,
        'codebook_size': rvq.vocabulary,
        'codebook_dim': rvq.dimension,
        'vq_strides': list(rvq.strides),
        'noise': decoder.noise,
        'depthwise': encoder.depthwise,
    }
    return codecs.checked(self, codec, config, encoder.weight_norm)

  def entries(self, codec):
    entries = []
    for part, place in (('encoder', 'block'), ('decoder', 'model')):
      for i, layer in enumerate(getattr(codec, part).layer.layers):
        entries += _walk(
            layer, f'params.{part}.layers_{i}', f'{part}.{place}.{i}'
        )
    levels = len(codec.bottleneck.strides)
    return [
        *entries,
        *dac_names.quantisers(codec.bottleneck, levels, stored_normed=True),
    ]

  def constants(self, codec):
    half = np.arange(0, snac.HEAD, 2, dtype=np.float32)
    frequencies = 1.0 / snac.THETA ** (half / snac.HEAD)
    return {
        f'{part}.{place}.{i}.rel_pos.inv_freq': frequencies.astype(np.float32)
        for part, place in (('encoder', 'block'), ('decoder', 'model'))
        for i, layer in enumerate(getattr(codec, part).layer.layers)
        if isinstance(layer, snac.WindowAttention)
    }


def _walk(layer, ours, theirs):
  if isinstance(layer, streaming.Serial):
    return [
        entry
        for i, part in enumerate(layer.layers)
        for entry in _walk(part, f'{ours}.layers_{i}', f'{theirs}.block.{i}')
    ]
  if isinstance(layer, snac.Noise):
    return _walk(layer.gain, f'{ours}.gain', f'{theirs}.linear')
  if isinstance(layer, snac.WindowAttention):
    return [
        interop_base.plain(f'{ours}.norm.scale', f'{theirs}.norm.weight'),
        interop_base.plain(f'{ours}.norm.bias', f'{theirs}.norm.bias'),
        interop_base.plain(
            f'{ours}.query_key_value', f'{theirs}.to_qkv.weight', (1, 0)
        ),
        interop_base.plain(f'{ours}.out', f'{theirs}.to_out.weight', (1, 0)),
    ]
  return dac_names.walk(layer, ours, theirs, _by_position, stored_normed=True)


def _by_position(layers):
  return [f'block.{i}' for i in range(len(layers))]
