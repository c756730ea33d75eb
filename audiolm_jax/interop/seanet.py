"""Names of SEANet's weights, which every user of it numbers in the same way."""

import dataclasses
from typing import Any

from audiolm_jax import streaming
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.tokenizers.parts import seanet


@dataclasses.dataclass(frozen=True)
class Names:
  """How a project spells them.

  Attributes:
    layers: the list: 'layers' (transformers) or 'model'.
    conv: from a list entry to its convolution.
    transposed: from a list entry to its transposed convolution.
    norm: from a list entry to its norm over time.
    stored_normed: whether files are written with weight norm.
  """

  layers: str = 'layers'
  conv: str = 'conv'
  transposed: str = 'conv'
  norm: str = 'norm'
  stored_normed: bool = False


ORIGINAL = Names('model', 'conv.conv', 'convtr.convtr', 'conv.norm', True)


def entries(
    layer: streaming.Serial, ours: str, theirs: str, names: Names
) -> list[interop_base.Entry]:
  """Those of the list of layers of a `parts.seanet` encoder or decoder."""
  result = []
  for i, inner in enumerate(layer.layers):
    result += _layer(
        inner, f'{ours}.layers_{i}', f'{theirs}.{names.layers}.{i}', names
    )
  return result


def _layer(layer, ours, theirs, names) -> list[interop_base.Entry]:
  if isinstance(layer, streaming.Conv):
    return _conv(layer, ours, f'{theirs}.{names.conv}', names)
  if isinstance(layer, streaming.ConvTranspose):
    entries = _conv(layer, ours, f'{theirs}.{names.transposed}', names)
    if isinstance(layer, seanet.NormedConvTranspose):
      entries += norm(f'{ours}.norm', f'{theirs}.{names.norm}')
    return entries
  if isinstance(layer, streaming.Residual):
    entries = []
    for i, inner in enumerate(layer.body.layers):
      entries += _layer(
          inner, f'{ours}.body.layers_{i}', f'{theirs}.block.{i}', names
      )
    if layer.shortcut is not None:
      entries += _layer(
          layer.shortcut, f'{ours}.shortcut', f'{theirs}.shortcut', names
      )
    return entries
  if isinstance(layer, streaming.Lstm):
    return lstm(layer, ours, f'{theirs}.lstm')
  if isinstance(layer, streaming.Serial):  # A convolution and its norm.
    conv, _ = layer.layers
    return [
        *_layer(conv, f'{ours}.layers_0', theirs, names),
        *norm(f'{ours}.layers_1', f'{theirs}.{names.norm}'),
    ]
  if isinstance(layer, streaming.Snake):
    layout = interop_base.Layout(
        (f'{theirs}.alpha',),
        lambda x: (x.reshape(-1),),
        lambda x: (x.reshape(1, -1, 1),),
    )
    return [interop_base.Entry((f'{ours}.alpha',), (layout,))]
  return []  # An activation without parameters.


def _conv(layer, ours, theirs, names):
  return interop_base.conv(
      ours,
      theirs,
      bias=layer.use_bias,
      transposed=isinstance(layer, streaming.ConvTranspose),
      normed=layer.weight_norm,
      stored_normed=names.stored_normed,
  )


def norm(ours: str, theirs: str) -> list[interop_base.Entry]:
  """A scale and a bias."""
  return [
      interop_base.plain(f'{ours}.scale', f'{theirs}.weight'),
      interop_base.plain(f'{ours}.bias', f'{theirs}.bias'),
  ]


def lstm(layer: Any, ours: str, theirs: str) -> list[interop_base.Entry]:
  """torch.nn.LSTM."""
  entries = []
  for i in range(layer.layers):
    for suffix in ('', '_reverse')[: 1 + layer.bidirectional]:
      here = f'{ours}.layer_{i}{suffix}'
      for name, place in (('input', 'ih'), ('recurrent', 'hh')):
        entries += [
            interop_base.plain(
                f'{here}.{name}',
                f'{theirs}.weight_{place}_l{i}{suffix}',
                (1, 0),
            ),
            interop_base.plain(
                f'{here}.{name}_bias', f'{theirs}.bias_{place}_l{i}{suffix}'
            ),
        ]
  return entries


def sizes(config: fields.Fields) -> dict[str, Any]:
  """What a transformers config says of SEANet, as fields of our parts."""
  values = {
      'channels': config.size('audio_channels'),
      'filters': config.size('num_filters'),
      'dimension': config.size('hidden_size'),
      'ratios': config.wholes('upsampling_ratios'),
      'kernel': config.size('kernel_size'),
      'last_kernel': config.size('last_kernel_size'),
      'residual_kernel': config.size('residual_kernel_size'),
      'residual_layers': config.count('num_residual_layers', least=0),
      'dilation_base': config.whole('dilation_growth_rate', most=64),
      'compress': config.whole('compress'),
      'conv_shortcut': config.flag('use_conv_shortcut'),
  }
  if values['compress'] > values['filters']:
    raise config.error('compress', f'at most num_filters, {values["filters"]}')
  return values


def transformer_matrices(ours: str, theirs: str) -> list[interop_base.Entry]:
  """Those of a block of `transformer.Transformer`, named as in transformers."""
  return [
      interop_base.plain(f'{ours}.{name}', f'{theirs}.{place}.weight', (1, 0))
      for name, place in (
          ('attention.query', 'self_attn.q_proj'),
          ('attention.key', 'self_attn.k_proj'),
          ('attention.value', 'self_attn.v_proj'),
          ('attention.out', 'self_attn.o_proj'),
          ('mlp.up', 'mlp.fc1'),
          ('mlp.down', 'mlp.fc2'),
      )
  ]
