"""stable-audio's autoencoder as diffusers has it (`AutoencoderOobleck`)."""

import dataclasses

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import dac as dac_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import dac


class Oobleck(interop_base.Family):
  """`AutoencoderOobleck`: the `vae` folder of a stable-audio pipeline.

  Its latents are the mean; diffusers samples, stable-audio scales them later.
  """

  defaults = {
      'sampling_rate': 44100,
      'audio_channels': 2,
      'encoder_hidden_size': 128,
      'downsampling_ratios': (2, 4, 4, 8, 8),
      'channel_multiples': (1, 2, 4, 8, 16),
      'decoder_channels': 128,
      'decoder_input_channels': 64,
  }

  def recognises(self, config):
    return config.get('_class_name') == 'AutoencoderOobleck'

  def make(self, config, options):
    multiples = (1, *config.wholes('channel_multiples'))
    strides = config.wholes('downsampling_ratios')
    if len(multiples) != len(strides) + 1:
      raise config.error('channel_multiples', f'{len(strides)}, one a stride')
    sizes = {
        'channels': config.size('audio_channels'),
        'activation': 'snake_beta',
        'weight_norm': options.weight_norm,
    }
    width = config.size('decoder_input_channels')
    first = config.size('encoder_hidden_size')
    last = config.size('decoder_channels')
    return codec_lib.Codec(
        encoder=dac.DacEncoder(
            dimension=first,
            widths=tuple(m * first for m in multiples),
            strides=strides,
            **sizes,
        ),
        bottleneck=bottlenecks.BOTTLENECKS['vae'](
            dimension=width, project=False
        ),
        decoder=dac.DacDecoder(
            dimension=width,
            widths=tuple(m * last for m in multiples[::-1]),
            strides=strides[::-1],
            tanh=False,
            last_bias=False,
            drop_samples=options.drop_samples,
            **sizes,
        ),
        sample_rate=codecs.sample_rate(config),
        whole_frames=True,
        objective=('GAN', 'Feat', 'Rec'),
        domain=('music', 'audio'),
    )

  def config_of(self, codec):
    encoder, decoder = codec.encoder, codec.decoder
    first = encoder.widths[0]
    config = {
        '_class_name': 'AutoencoderOobleck',
        'encoder_hidden_size': encoder.dimension,
        'downsampling_ratios': list(encoder.strides),
        'channel_multiples': [w // first for w in encoder.widths[1:]],
        'decoder_channels': decoder.widths[-1],
        'decoder_input_channels': decoder.dimension,
        'audio_channels': encoder.channels,
        'sampling_rate': codec.sample_rate,
    }
    return codecs.checked(self, codec, config, encoder.weight_norm)

  def entries(self, codec):
    entries = []
    for part in ('encoder', 'decoder'):
      entries += dac_names.walk(
          getattr(codec, part).layer,
          f'params.{part}',
          part,
          dac_names.numbered,
          stored_normed=True,
      )
    return [_older_first(entry) for entry in entries]


def _older_first(entry):
  """diffusers still writes weight_g and weight_v."""

  def newer(layout):
    return any('parametrizations' in name for name in layout.theirs)

  return dataclasses.replace(
      entry, layouts=tuple(sorted(entry.layouts, key=newer))
  )
