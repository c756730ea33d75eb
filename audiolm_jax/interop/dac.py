"""DAC as transformers has it (`descript/dac_16khz`, 24 and 44 kHz)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from audiolm_jax import streaming
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import dac

# Layers of a list -> their names in it.
Names = Callable[[Sequence[streaming.Layer]], list[str]]

_LEVELS = 'quantizer.quantizers'


class Dac(interop_base.Family):
  """`DacModel`."""

  defaults = {
      'sampling_rate': 16000,
      'encoder_hidden_size': 64,
      'downsampling_ratios': (2, 4, 8, 8),
      'decoder_hidden_size': 1536,
      'n_codebooks': 9,
      'codebook_size': 1024,
      'codebook_dim': 8,
      'quantizer_dropout': 0.0,
      'commitment_loss_weight': 0.25,
      'codebook_loss_weight': 1.0,
  }

  def recognises(self, config):
    return config.get('model_type') == 'dac'

  def make(self, config, options):
    down = config.wholes('downsampling_ratios')
    up = down[::-1]
    if 'upsampling_ratios' in config:
      up = config.wholes('upsampling_ratios')
    first = config.size('encoder_hidden_size')
    last = config.size('decoder_hidden_size')
    if last >> len(up) == 0:
      raise config.error('decoder_hidden_size', f'at least {1 << len(up)}')
    config.check_size('encoder_hidden_size', first << len(down))
    dropout = config.raw('quantizer_dropout')
    if not isinstance(dropout, bool):  # As the original says it.
      dropout = config.number('quantizer_dropout', least=0.0, most=1.0)
    sizes = {
        'dimension': first << len(down),
        'weight_norm': options.weight_norm,
    }
    return codec_lib.Codec(
        encoder=dac.DacEncoder(
            widths=tuple(first << i for i in range(len(down) + 1)),
            strides=down,
            **sizes,
        ),
        bottleneck=bottlenecks.BOTTLENECKS['factorised_rvq'](
            codebooks=config.count('n_codebooks'),
            vocabulary=config.size('codebook_size'),
            dimension=config.size('codebook_dim'),
            weight_norm=options.weight_norm,
            dropout=float(dropout),
            commitment_weight=config.number(
                'commitment_loss_weight', least=0.0
            ),
            codebook_weight=config.number('codebook_loss_weight', least=0.0),
        ),
        decoder=dac.DacDecoder(
            widths=tuple(last >> i for i in range(len(up) + 1)),
            strides=up,
            drop_samples=options.drop_samples,
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
        'model_type': 'dac',
        'architectures': ['DacModel'],
        'sampling_rate': codec.sample_rate,
        'encoder_hidden_size': encoder.widths[0],
        'downsampling_ratios': list(encoder.strides),
        'decoder_hidden_size': decoder.widths[0],
        'upsampling_ratios': list(decoder.strides),
        'hidden_size': encoder.dimension,
        'hop_length': encoder.hop,
        'n_codebooks': rvq.codebooks,
        'codebook_size': rvq.vocabulary,
        'codebook_dim': rvq.dimension,
        'quantizer_dropout': rvq.dropout,
        'commitment_loss_weight': rvq.commitment_weight,
        'codebook_loss_weight': rvq.codebook_weight,
    }
    return codecs.checked(self, codec, config, encoder.weight_norm)

  def entries(self, codec):
    entries = []
    for part in ('encoder', 'decoder'):
      entries += walk(
          getattr(codec, part).layer, f'params.{part}', part, numbered
      )
    count = codec.bottleneck.codebooks
    return [*entries, *quantisers(codec.bottleneck, count)]


def walk(
    layer: streaming.Layer,
    ours: str,
    theirs: str,
    names: Names,
    stored_normed: bool = False,
) -> list[interop_base.Entry]:
  """Entries of a layer made of `parts.dac` units.

  Args:
    layer: an encoder, a decoder or part of one.
    ours: its path.
    theirs: its name.
    names: what the layers of a list are called.
    stored_normed: whether files are written with weight norm.
  """
  if isinstance(layer, streaming.Residual):
    layer, ours = layer.body, f'{ours}.body'
  if isinstance(layer, streaming.Serial):
    inner = zip(layer.layers, names(layer.layers), strict=True)
    return [
        entry
        for i, (part, name) in enumerate(inner)
        for entry in walk(
            part, f'{ours}.layers_{i}', f'{theirs}.{name}', names, stored_normed
        )
    ]
  if isinstance(layer, streaming.Snake):
    return [
        _factors(f'{ours}.{name}', f'{theirs}.{name}')
        for name in ('alpha', 'beta')[: 1 + layer.separate]
    ]
  if isinstance(layer, streaming.Conv | streaming.ConvTranspose):
    return interop_base.conv(
        ours,
        theirs,
        bias=layer.use_bias,
        transposed=isinstance(layer, streaming.ConvTranspose),
        normed=layer.weight_norm,
        stored_normed=stored_normed,
    )
  return []  # A function.


def numbered(layers: Sequence[streaming.Layer]) -> list[str]:
  """conv1, block.0, ...: how transformers and diffusers name layers."""
  numbers, counts = [], {}
  for layer in layers:
    kind = next(
        (name for cls, name in _KINDS if isinstance(layer, cls)), 'function'
    )
    counts[kind] = counts.get(kind, 0) + 1
    number = counts[kind]
    numbers.append(
        f'block.{number - 1}' if kind == 'block' else kind + str(number)
    )
  return numbers


_KINDS = (
    (streaming.Residual, 'res_unit'),
    (streaming.Serial, 'block'),
    (streaming.Snake, 'snake'),
    (streaming.Conv, 'conv'),
    (streaming.ConvTranspose, 'conv_t'),
)


def quantisers(
    bottleneck: Any, count: int, stored_normed: bool = False
) -> list[interop_base.Entry]:
  """Entries of DAC's quantisers, each level of which ours holds stacked."""
  entries = []
  for side in ('in', 'out'):
    levels = [
        interop_base.conv(
            f'params.bottleneck.{side}',
            f'{_LEVELS}.{k}.{side}_proj',
            normed=bottleneck.weight_norm,
            stored_normed=stored_normed,
        )
        for k in range(count)
    ]
    entries += [_stacked(level) for level in zip(*levels, strict=True)]
  books = [f'{_LEVELS}.{k}.codebook.weight' for k in range(count)]
  return [*entries, interop_base.stacked('params.bottleneck.codebooks', books)]


def _factors(ours, theirs):
  """[C] of ours is [1, C, 1] there."""
  layout = interop_base.Layout(
      (theirs,), lambda x: (x.reshape(-1),), lambda x: (x.reshape(1, -1, 1),)
  )
  return interop_base.Entry((ours,), (layout,))


def _stacked(levels: Sequence[interop_base.Entry]) -> interop_base.Entry:
  """The entries of 1x1 convolutions, or of their biases, as those of one leaf.

  Kernels [1, D, E] become [K, D, E].
  """
  return interop_base.Entry(
      levels[0].ours,
      tuple(
          _stacked_layout(layouts)
          for layouts in zip(*[e.layouts for e in levels], strict=True)
      ),
  )


def _stacked_layout(layouts):
  size = len(layouts[0].theirs)

  def load(*arrays):
    pieces = [arrays[i : i + size] for i in range(0, len(arrays), size)]
    loaded = [x.load(*p) for x, p in zip(layouts, pieces, strict=True)]
    stacks = [np.stack(leaves) for leaves in zip(*loaded, strict=True)]
    return tuple(x[:, 0] if x.ndim == 4 else x for x in stacks)

  def save(*leaves):
    leaves = [x[:, None] if x.ndim == 3 else x for x in leaves]
    return tuple(
        array
        for k, layout in enumerate(layouts)
        for array in layout.save(*[x[k] for x in leaves])
    )

  names = tuple(name for x in layouts for name in x.theirs)
  return interop_base.Layout(names, load, save)
