"""VibeVoice's acoustic tokenizer as transformers has it."""

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import convnext


class VibeVoiceTokenizer(interop_base.Family):
  """`VibeVoiceAcousticTokenizerModel`.

  Its rate is in no config.json, but in that of what prepares its audio, which
  also makes clips equally loud (-25 dB of full scale). The latter is not here.
  """

  defaults = {
      'sampling_rate': 24000,
      'channels': 1,
      'hidden_size': 64,
      'kernel_size': 7,
      'rms_norm_eps': 1e-5,
      'layer_scale_init_value': 1e-6,
      'num_filters': 32,
      'downsampling_ratios': (2, 2, 4, 5, 5, 8),
      'depths': (3, 3, 3, 3, 3, 3, 8),
      'hidden_act': 'gelu',
      'ffn_expansion': 4,
      'vae_std': 0.625,
  }

  def recognises(self, config):
    return config.get('model_type') == 'vibevoice_acoustic_tokenizer'

  def make(self, config, options):
    config.require({'hidden_act': 'gelu'})
    strides = config.wholes('downsampling_ratios', least=2)
    depths = config.wholes('depths')
    if len(depths) != len(strides) + 1:
      raise config.error('depths', f'{len(strides) + 1}, one more than strides')
    for depth in depths:
      config.check_count('depths', depth)
    filters = config.size('num_filters')
    config.check_size('num_filters', filters * 2 ** len(strides))
    dimension = config.size('hidden_size')
    sizes = {
        'channels': config.size('channels'),
        'dimension': dimension,
        'filters': filters,
        'kernel': config.size('kernel_size'),
        'expansion': config.size('ffn_expansion'),
        'norm_epsilon': config.number('rms_norm_eps', least=0.0),
        'layer_scale': config.number('layer_scale_init_value'),
    }
    return codec_lib.Codec(
        encoder=convnext.ConvNextEncoder(
            strides=strides, depths=depths, **sizes
        ),
        bottleneck=bottlenecks.BOTTLENECKS['sigma_vae'](
            dimension=dimension,
            project=False,
            std=config.number('vae_std', least=0.0),
        ),
        decoder=convnext.ConvNextDecoder(
            strides=strides[::-1], depths=depths[::-1], **sizes
        ),
        sample_rate=codecs.sample_rate(config),
        whole_frames=True,
        objective=('GAN', 'Feat', 'Rec'),
        domain=('speech',),
    )

  def config_of(self, codec):
    part = codec.encoder
    config = {
        'model_type': 'vibevoice_acoustic_tokenizer',
        'architectures': ['VibeVoiceAcousticTokenizerModel'],
        'sampling_rate': codec.sample_rate,
        'channels': part.channels,
        'hidden_size': part.dimension,
        'kernel_size': part.kernel,
        'rms_norm_eps': part.norm_epsilon,
        'layer_scale_init_value': part.layer_scale,
        'num_filters': part.filters,
        'downsampling_ratios': list(part.strides),
        'depths': list(part.depths),
        'hidden_act': 'gelu',
        'ffn_expansion': part.expansion,
        'vae_std': codec.bottleneck.std,
    }
    return codecs.checked(self, codec, config, weight_norm=False)

  def entries(self, codec):
    entries = []
    for name in ('encoder', 'decoder'):
      entries += _part_entries(getattr(codec, name), name)
    return entries


def _part_entries(part, name):
  """Of an encoder or a decoder."""
  ours, up = f'params.{name}', isinstance(part, convnext.ConvNextDecoder)
  last = len(part.depths)
  entries = interop_base.conv(f'{ours}.layers_{last}', f'{name}.head.conv')
  for i, depth in enumerate(part.depths):
    here = f'{ours}.layers_{i}'
    there = f'{name}.conv_layers.{i - 1}' if i else f'{name}.stem'
    transposed = up and i > 0
    conv = 'convtr.convtr' if transposed else 'conv.conv'
    entries += interop_base.conv(
        f'{here}.layers_0', f'{there}.{conv}', transposed=transposed
    )
    for j in range(depth):
      entries += _block_entries(f'{here}.layers_{j + 1}', f'{there}.stage.{j}')
  return entries


def _block_entries(ours, theirs):
  mixer, perceptron = (f'{ours}.layers_{i}.body' for i in (0, 1))
  return [
      *interop_base.conv(f'{mixer}.layers_1', f'{theirs}.mixer.conv'),
      *interop_base.linear(f'{perceptron}.layers_1', f'{theirs}.ffn.linear1'),
      *interop_base.linear(f'{perceptron}.layers_3', f'{theirs}.ffn.linear2'),
      *[
          interop_base.plain(f'{here}.scale', f'{theirs}.{there}')
          for here, there in (
              (f'{mixer}.layers_0', 'norm.weight'),
              (f'{mixer}.layers_2', 'gamma'),
              (f'{perceptron}.layers_0', 'ffn_norm.weight'),
              (f'{perceptron}.layers_4', 'ffn_gamma'),
          )
      ],
  ]
