"""What the rungs of the ladder share; each of them is a config of its own.

Data, embeddings, pattern, head, optimizer and steps are those of
configs/lm/quickstart.py, so that rungs differ in their backbone alone. Where an
ingredient would change the budget its widths are chosen against that: a gated
perceptron has two thirds of the hidden width, and the experts that a position
meets have together the hidden width of the dense perceptron.
"""

import dataclasses
from typing import Literal

from audiolm_jax import config
from audiolm_jax import decoders
from configs.lm import quickstart


@dataclasses.dataclass(frozen=True)
class Model:
  """The ingredients; the defaults are GPT-2's.

  Attributes:
    positions: learned vectors, rotary ones (theta 10,000), or rotary ones as in
      gpt-oss: theta 150,000, stretched from 4,096 to 131,072 positions by YaRN.
    norm: with bias ('layer') or without ('rms').
    activation: of the perceptrons.
    grouped: whether half of the query heads share a key head each.
    experts: whether each perceptron is 8 experts, of which a position meets 2.
    sliding: whether every other layer sees a window only.
    sinks: whether heads may attend to nothing.
    dropout: whether there is any.
  """

  positions: Literal['learned', 'rope', 'yarn'] = 'learned'
  norm: Literal['layer', 'rms'] = 'layer'
  activation: Literal['gelu_tanh', 'swiglu', 'clamped_swiglu'] = 'gelu_tanh'
  grouped: bool = False
  experts: bool = False
  sliding: bool = False
  sinks: bool = False
  dropout: bool = True


@dataclasses.dataclass(frozen=True)
class Size:
  """Of a backbone.

  Attributes:
    width: of the residual stream.
    layers: how many.
    heads: of queries.
    hidden: width of a plain perceptron.
    gated: width of a gated one, divisible by 2.
    frames: of a row.
    window: of layers that see one, in steps.
  """

  width: int
  layers: int
  heads: int
  hidden: int
  gated: int
  frames: int
  window: int


SIZES = {
    'cpu': Size(256, 4, 4, 1024, 672, frames=128, window=32),
    'smoke': Size(64, 2, 2, 128, 80, frames=64, window=16),
}


def backbone(model: Model, size: Size):
  """The stack's config."""
  rope = None
  if model.positions == 'rope':
    rope = {'kind': 'rope'}
  elif model.positions == 'yarn':
    yarn = {'factor': 32.0, 'original_length': 4096, 'truncate': False}
    rope = {'kind': 'rope', 'theta': 150_000.0, 'yarn': yarn}
  attention = {
      'kind': 'attention',
      'heads': size.heads,
      'kv_heads': size.heads // 2 if model.grouped else None,
      'positions': rope,
      'sinks': model.sinks,
      'use_bias': True,
      'out_bias': True,
  }
  hidden = size.hidden if model.activation == 'gelu_tanh' else size.gated
  mlp = {
      'kind': 'dense',
      'hidden': hidden,
      'activation': model.activation,
      'use_bias': True,
  }
  if model.experts:
    mlp = {
        **mlp,
        'kind': 'moe',
        'experts': 8,
        'top_k': 2,
        'hidden': hidden // 2,
        'router_bias': True,
    }
  mixers = (attention,)
  if model.sliding:
    mixers = ({**attention, 'window': size.window}, attention)
  return config.kind(
      decoders.BACKBONES,
      'stack',
      width=size.width,
      layers=size.layers,
      mixers=mixers,
      mlp=mlp,
      norm=model.norm,
      norm_bias=model.norm == 'layer',
      positions='learned' if model.positions == 'learned' else 'none',
      # Steps of the longest clips that are scored.
      max_positions=256,
      dropout=0.1 if model.dropout else 0.0,
  )


def build(arg: str, model: Model):
  """The whole config; `arg` is 'cpu' or 'smoke'."""
  values = quickstart.get_config(arg)
  values.objective.decoder.backbone = backbone(model, SIZES[arg])
  return values
