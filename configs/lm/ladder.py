"""From GPT-2 to gpt-oss, one ingredient a rung.

python -m audiolm_jax.main --config=configs/lm/ladder.py:moe,cpu \
    --workdir=runs/ladder/moe

trains a rung on the tokens of tools/quickstart.py (runs/quickstart/tokens; set
--config.data.cache for others). Each rung of `VARIANTS` changes one thing of
the one before. `ladder.py:without_sinks` is the end, gpt-oss, without one
ingredient (GPT-2's in its place): the rungs add one after the other, so that
what each is worth depends on those before, and here each is missed by itself.

Data, embeddings, pattern, head, optimizer and steps are those of
configs/lm/quickstart.py, so that rungs differ in their backbone alone. Where an
ingredient would change the budget its widths are chosen against that: a gated
perceptron has two thirds of the hidden width, and the experts that a position
meets have together the hidden width of the dense perceptron. Biases stay:
gpt-oss has them in attention, router and experts. What gpt-oss has beside the
last rung's block are sizes (128 experts, of which a position meets 4; 8 query
heads a key head; windows of 128).

Hardware: `:RUNG,cpu` 2 CPU cores, for the times beside each rung. Results are
bits a frame on 100 validation clips (one seed); the rungs without one were
trained for their smoke budget only. `:RUNG,gpu` has the quickstart's budget for
accelerators; it was built and traced here, not run.
"""

import dataclasses
from typing import Any, Literal

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import rotary
from audiolm_jax.training import config_files
from configs.lm import quickstart


@dataclasses.dataclass(frozen=True)
class Ingredients:
  """Of a backbone; the defaults are GPT-2's.

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
    window: of layers that see one, in steps.
    longest: steps of the longest clips that are scored.
  """

  width: int
  layers: int
  heads: int
  hidden: int
  gated: int
  window: int
  longest: int = 256


_SIZES = {
    'smoke': Size(64, 2, 2, 128, 80, window=16),
    'cpu': Size(256, 4, 4, 1024, 672, window=32),
    'gpu': Size(768, 12, 12, 3072, 2048, window=128, longest=1024),
}
# What each rung changes of the one before.
_CHANGES: dict[str, dict[str, Any]] = {
    # GPT-2's block: learned positions, LayerNorm before each branch, full
    # multi-head attention, a dense GELU perceptron (its tanh approximation),
    # biases everywhere, dropout .1. 120 s, 31.73 bits.
    'gpt2': {},
    # Rotary positions in each layer instead of learned ones at the input.
    # 110 s, 31.05 bits.
    'rope': {'positions': 'rope'},
    # It takes no mean away and has no bias. 120 s, 31.04 bits.
    'rms_norm': {'norm': 'rms'},
    # The gate is a third matrix, so the hidden width shrinks to two thirds.
    # 120 s, 30.89 bits.
    'swiglu': {'activation': 'swiglu'},
    # Two query heads share a key head: the cache of keys and values halves.
    # 110 s, 30.88 bits.
    'gqa': {'grouped': True},
    # 8 experts of half the hidden width, of which a position meets 2: four
    # times the perceptron's parameters at the same FLOPs. The objective adds
    # the losses that balance the experts and keep the router's logits small.
    # 190 s, 31.00 bits.
    'moe': {'experts': True},
    # The first of every two layers sees the last steps only (32, or 16 at the
    # size 'smoke'; gpt-oss 128). 200 s, 30.96 bits.
    'sliding_window': {'sliding': True},
    # A learned logit in each head's softmax that has no value, so that heads
    # may attend to nothing.
    'sinks': {'sinks': True},
    # Models that see each token once do without; whether small data allows it
    # is what this rung asks.
    'no_dropout': {'dropout': False},
    # (up + 1) gate sigmoid(1.702 gate), with gate and up clamped at 7.
    'clamped_swiglu': {'activation': 'clamped_swiglu'},
    # Theta 150,000, and frequencies stretched from 4,096 to 131,072 positions
    # by YaRN for plain rotary frequencies.
    'gpt_oss': {'positions': 'yarn'},
}
VARIANTS: dict[str, Ingredients] = {}
for _name, _change in _CHANGES.items():
  _before = [Ingredients(), *VARIANTS.values()][-1]
  VARIANTS[_name] = dataclasses.replace(_before, **_change)
WITHOUT: dict[str, Ingredients] = {
    f'without_{field.name}': dataclasses.replace(
        VARIANTS['gpt_oss'], **{field.name: field.default}
    )
    for field in dataclasses.fields(Ingredients)
}


def backbone(model: Ingredients, size: Size) -> stack_lib.Stack:
  """The stack of a rung."""
  rope = None
  if model.positions == 'rope':
    rope = rotary.Rope()
  elif model.positions == 'yarn':
    yarn = rotary.Yarn(factor=32.0, original_length=4096, truncate=False)
    rope = rotary.Rope(theta=150_000.0, yarn=yarn)
  mixer = attention.Attention(
      heads=size.heads,
      kv_heads=size.heads // 2 if model.grouped else None,
      positions=rope,
      sinks=model.sinks,
      use_bias=True,
      out_bias=True,
  )
  mixers = (mixer,)
  if model.sliding:
    mixers = (config.replace(mixer, {'window': size.window}), mixer)
  hidden = size.hidden if model.activation == 'gelu_tanh' else size.gated
  mlp = mlps.Dense(hidden=hidden, activation=model.activation, use_bias=True)
  if model.experts:
    mlp = mlps.Moe(
        experts=8,
        top_k=2,
        hidden=hidden // 2,
        activation=model.activation,
        use_bias=True,
        router_bias=True,
    )
  return stack_lib.Stack(
      width=size.width,
      layers=size.layers,
      mixers=mixers,
      mlp=mlp,
      norm=model.norm,
      norm_bias=model.norm == 'layer',
      positions='learned' if model.positions == 'learned' else 'none',
      max_positions=size.longest,
      dropout=0.1 if model.dropout else 0.0,
  )


def get_config(arg: str = 'gpt2,cpu') -> train.Config:
  """The config; `arg` is a rung or 'without_INGREDIENT', and a size."""
  models = VARIANTS | WITHOUT
  name, size = config_files.choose(arg, models, config_files.SIZES)
  return config.replace(
      quickstart.get_config(size),
      {'objective.decoder.backbone': backbone(models[name], _SIZES[size])},
  )
