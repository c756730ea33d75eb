"""stable-audio's autoencoder as diffusers has it (`AutoencoderOobleck`)."""

import dataclasses

from audiolm_jax.interop import base
from audiolm_jax.interop import dac as dac_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import dac


class Oobleck(base.Family):
  """`AutoencoderOobleck`: the `vae` folder of a stable-audio pipeline.

  Its latents are the mean; diffusers samples, stable-audio scales them later.
  """

  def recognises(self, config):
    return config.get('_class_name') == 'AutoencoderOobleck'

  def build(self, config, options):
    multiples = (1, *config['channel_multiples'])
    strides = tuple(config['downsampling_ratios'])
    sizes = {
        'channels': config['audio_channels'],
        'activation': 'snake_beta',
        'weight_norm': options.weight_norm,
    }
    width = config['decoder_input_channels']
    return codec_lib.Codec(
        encoder=dac.DacEncoder(
            dimension=config['encoder_hidden_size'],
            widths=tuple(m * config['encoder_hidden_size'] for m in multiples),
            strides=strides,
            **sizes,
        ),
        bottleneck=bottlenecks.BOTTLENECKS['vae'](
            dimension=width, project=False
        ),
        decoder=dac.DacDecoder(
            dimension=width,
            widths=tuple(
                m * config['decoder_channels'] for m in multiples[::-1]
            ),
            strides=strides[::-1],
            tanh=False,
            last_bias=False,
            drop_samples=options.drop_samples,
            **sizes,
        ),
        sample_rate=config['sampling_rate'],
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
    dac_names.check_parts(self, codec, config)
    return config

  def entries(self, codec):
    found = []
    for part in ('encoder', 'decoder'):
      found += dac_names.walk(
          getattr(codec, part).layer,
          f'params.{part}',
          part,
          dac_names.numbered,
          stored_normed=True,
      )
    return [_older_first(entry) for entry in found]


def _older_first(entry):
  """diffusers still writes weight_g and weight_v."""

  def newer(layout):
    return any('parametrizations' in name for name in layout.theirs)

  return dataclasses.replace(
      entry, layouts=tuple(sorted(entry.layouts, key=newer))
  )
