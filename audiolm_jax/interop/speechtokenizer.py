"""SpeechTokenizer as its authors publish it, converted to safetensors.

config.json is theirs; model.safetensors holds the state dict of their
SpeechTokenizer.pt under the same names.
"""

import dataclasses

import numpy as np

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import seanet as seanet_names
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import seanet

_ACTIVATIONS = {'ELU': 'elu', 'Snake': 'snake'}
_OWN = ('n_filters', 'strides', 'semantic_dimension', 'n_q')


class SpeechTokenizer(interop_base.Family):
  """`speechtokenizer.SpeechTokenizer`."""

  def recognises(self, config):
    return 'model_type' not in config and all(key in config for key in _OWN)

  def make(self, config, options):
    dimension = config.size('dimension')
    features = config.size('semantic_dimension')
    sizes = {
        'filters': config.size('n_filters', least=2),
        'dimension': dimension,
        'ratios': config.wholes('strides'),
        'residual_kernel': config.size('residual_kernel_size'),
        'residual_layers': config.count('n_residual_layers', least=0),
        'dilation_base': config.whole('dilation_base', most=64),
        'conv_shortcut': True,
        'causal': False,
        'padding': 'reflect',
        'norm': 'weight' if options.weight_norm else 'none',
        'activation': config.choice('activation', _ACTIVATIONS),
        'lstm_layers': config.count('lstm_layers', least=0),
    }
    rvq = {
        'codebooks': config.count('n_q'),
        'vocabulary': config.size('codebook_size'),
        'decay': 0.99,
        'initial': 'data',
    }
    if features != dimension:
      bottleneck = bottlenecks.BOTTLENECKS['distilled_rvq'](
          **rvq, features=features
      )
    else:  # Theirs then has no map to the teacher's features.
      bottleneck = bottlenecks.BOTTLENECKS['rvq'](**rvq)
    return codec_lib.Codec(
        encoder=seanet.SeanetEncoder(
            **sizes, bidirectional=config.flag('bidirectional')
        ),
        bottleneck=bottleneck,
        decoder=seanet.SeanetDecoder(**sizes),
        sample_rate=codecs.sample_rate(config, 'sample_rate'),
        objective=('GAN', 'Feat', 'Rec', 'VQ'),
        auxiliary=('semantic distillation',),
        domain=('speech',),
    )

  def config_of(self, codec):
    part, rvq = codec.encoder, codec.bottleneck
    config = {
        'n_filters': part.filters,
        'strides': list(part.ratios),
        'dimension': part.dimension,
        'semantic_dimension': getattr(rvq, 'features', part.dimension),
        'bidirectional': part.bidirectional,
        'dilation_base': part.dilation_base,
        'residual_kernel_size': part.residual_kernel,
        'n_residual_layers': part.residual_layers,
        'lstm_layers': part.lstm_layers,
        'activation': {v: k for k, v in _ACTIVATIONS.items()}[part.activation],
        'n_q': rvq.codebooks,
        'codebook_size': rvq.vocabulary,
        'sample_rate': codec.sample_rate,
    }
    return codecs.checked(self, codec, config, part.norm == 'weight')

  def entries(self, codec):
    entries = []
    for part in ('encoder', 'decoder'):
      (layers,) = getattr(codec, part).layer.layers
      entries += seanet_names.entries(
          layers, f'params.{part}.layers_0', part, seanet_names.ORIGINAL
      )
    entries = [_older_first(entry) for entry in entries]
    if isinstance(codec.bottleneck, bottlenecks.BOTTLENECKS['distilled_rvq']):
      entries += interop_base.linear('params.bottleneck.semantic', 'transform')
    for ours, theirs in (
        ('codebooks', 'embed'),
        ('counts', 'cluster_size'),
        ('sums', 'embed_avg'),
    ):
      names = [f'{book}.{theirs}' for book in _books(codec)]
      entries.append(interop_base.stacked(f'state.{ours}', names))
    return [*entries, interop_base.Entry(('state.updates',))]

  def constants(self, codec):
    one = np.ones(1, np.float32)
    return {f'{book}.inited': one for book in _books(codec)}


def _books(codec):
  return [
      f'quantizer.vq.layers.{k}._codebook'
      for k in range(codec.bottleneck.codebooks)
  ]


def _older_first(entry):
  """Saved with weight_g and weight_v, as torch's older weight norm has it."""
  layouts = sorted(
      entry.layouts, key=lambda x: not x.theirs[0].endswith('weight_g')
  )
  return dataclasses.replace(entry, layouts=tuple(layouts))
