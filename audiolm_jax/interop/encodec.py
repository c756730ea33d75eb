"""EnCodec as transformers has it: 24 kHz, 48 kHz, and MusicGen's 32 kHz."""

import math

import numpy as np

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import segments
from audiolm_jax.tokenizers.parts import seanet

_NORMS = {'weight_norm': 'weight', 'time_group_norm': 'time_group'}
_PADDINGS = {'reflect': 'reflect', 'constant': 'zeros'}
_DOUBLINGS = tuple(2**i for i in range(10))


class Encodec(interop_base.Family):
  """`EncodecModel`."""

  defaults = {
      'target_bandwidths': (1.5, 3.0, 6.0, 12.0, 24.0),
      'sampling_rate': 24000,
      'audio_channels': 1,
      'normalize': False,
      'chunk_length_s': None,
      'overlap': None,
      'hidden_size': 128,
      'num_filters': 32,
      'num_residual_layers': 1,
      'upsampling_ratios': (8, 5, 4, 2),
      'norm_type': 'weight_norm',
      'kernel_size': 7,
      'last_kernel_size': 7,
      'residual_kernel_size': 3,
      'dilation_growth_rate': 2,
      'use_causal_conv': True,
      'pad_mode': 'reflect',
      'compress': 2,
      'num_lstm_layers': 2,
      'codebook_size': 1024,
      'use_conv_shortcut': True,
  }

  def recognises(self, config):
    return config.get('model_type') == 'encodec'

  def make(self, config, options):
    config.require({'trim_right_ratio': 1.0})
    norm = config.choice('norm_type', _NORMS)
    if norm == 'weight' and not options.weight_norm:
      norm = 'none'
    padding = config.choice('pad_mode', _PADDINGS)
    causal = config.flag('use_causal_conv')
    if options.streamable and causal:
      padding = 'zeros'
    sizes = {
        **seanet_names.sizes(config),
        'causal': causal,
        'padding': padding,
        'norm': norm,
        'lstm_layers': config.count('num_lstm_layers', least=0),
    }
    rate = codecs.sample_rate(config)
    encoder = seanet.SeanetEncoder(**sizes)
    vocabulary = config.size('codebook_size', least=2)
    return codec_lib.Codec(
        encoder=encoder,
        bottleneck=bottlenecks.BOTTLENECKS['rvq'](
            codebooks=_codebooks(config, rate / encoder.hop, vocabulary),
            vocabulary=vocabulary,
            decay=0.99,
            initial='data',
        ),
        decoder=seanet.SeanetDecoder(**sizes),
        sample_rate=rate,
        segment=_segment(config, rate),
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
    )

  def config_of(self, codec):
    part, rvq = codec.encoder, codec.bottleneck
    size, stride = codec.spec.segment or (None, None)
    rate = codec.sample_rate
    config = {
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
        'chunk_length_s': None,
        'overlap': None,
        'target_bandwidths': [
            _bandwidth(n, rate / part.hop, rvq.vocabulary)
            for n in sorted({*_DOUBLINGS, rvq.codebooks})
            if n <= rvq.codebooks
        ],
    }
    if size is not None:
      # Reading rounds down.
      config['chunk_length_s'] = _moved(
          size / rate, math.inf, lambda x: int(x * rate) >= size
      )
      config['overlap'] = _moved(
          1 - stride / size, -math.inf, lambda x: _stride(x, size) >= stride
      )
    return codecs.checked(self, codec, config, part.norm == 'weight')

  def entries(self, codec):
    normed = codec.encoder.norm != 'time_group'
    names = seanet_names.Names(stored_normed=normed)
    entries = []
    for part in ('encoder', 'decoder'):
      (layers,) = getattr(codec, part).layer.layers
      entries += seanet_names.entries(
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
      entries.append(interop_base.stacked(f'state.{ours}', names))
    return [*entries, interop_base.Entry(('state.updates',))]

  def constants(self, codec):
    return {
        f'quantizer.layers.{k}.codebook.inited': np.ones(1, np.float32)
        for k in range(codec.bottleneck.codebooks)
    }


def _segment(config, rate):
  """How audio is cut."""
  seconds = config.number('chunk_length_s', above=0.0, null=True)
  normalize = config.flag('normalize')
  if seconds is None and normalize:
    raise interop_base.PretrainedError(
        'normalize = True without chunk_length_s: a gain for a whole file is'
        ' not supported'
    )
  if seconds is None:
    return None
  size = int(seconds * rate)
  overlap = config.number('overlap', least=0.0, most=1.0)
  if not 1 <= size < 2**31:
    raise config.error('chunk_length_s', 'at least a sample')
  return segments.Segments(size, _stride(overlap, size), normalize)


def _stride(overlap, size):
  return max(1, int((1.0 - overlap) * size))


def _bits(frame_rate, vocabulary):
  """A second of one codebook, as transformers' EncodecConfig counts them."""
  return math.ceil(frame_rate) * math.ceil(math.log2(vocabulary))


def _codebooks(config, frame_rate, vocabulary):
  """EncodecConfig.num_quantizers: those of the last of the bandwidths."""
  key = 'target_bandwidths'
  for bandwidth in config.items(key):
    if isinstance(bandwidth, bool) or not isinstance(bandwidth, int | float):
      raise config.error(key, 'a list of numbers')
    if not 0 < bandwidth < 1e9:
      raise config.error(key, 'kilobits a second')
  count = int(1000 * bandwidth // _bits(frame_rate, vocabulary))
  if count < 1:
    raise config.error(key, 'one for at least a codebook at the end')
  config.check_count(key, count)
  return count


def _bandwidth(count, frame_rate, vocabulary):
  """Kilobits a second that count as so many codebooks, of which the config and
  the quantiser of transformers have each their own sum."""
  bits = _bits(frame_rate, vocabulary)
  exact = math.ceil(frame_rate) * math.log2(vocabulary)

  def enough(kilobits):
    return min(1000 * kilobits // bits, kilobits * 1000 // exact) >= count

  return _moved(count * bits / 1000, math.inf, enough)


def _moved(value, towards, enough):
  """The nearest number in a direction of which something holds."""
  while not enough(value):
    value = math.nextafter(value, towards)
  return value
