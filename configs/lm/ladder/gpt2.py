"""The first rung: GPT-2's block.

python -m audiolm_jax.main --config=configs/lm/ladder/gpt2.py:cpu \
    --workdir=runs/ladder/gpt2

Learned positions, LayerNorm before each branch, full multi-head attention, a
dense GELU perceptron (its tanh approximation), biases everywhere, dropout .1.

Hardware: 2 CPU cores, 120 s. Result: 31.73 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

from typing import Literal

from configs.lm.ladder import recipe

MODEL = recipe.Model()


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
