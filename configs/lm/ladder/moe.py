"""A rung of the ladder: a mixture of experts for the dense perceptron.

python -m audiolm_jax.main --config=configs/lm/ladder/moe.py:cpu \
    --workdir=runs/ladder/moe

8 experts of half the hidden width, of which a position meets 2: four times the
perceptron's parameters at the same FLOPs. The objective adds the losses that
balance the experts and keep the router's logits small.

Hardware: 2 CPU cores, 190 s. Result: 31.00 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import gqa
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(gqa.MODEL, experts=True)


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
