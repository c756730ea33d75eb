"""A rung of the ladder: rotary positions for learned ones.

python -m audiolm_jax.main --config=configs/lm/ladder/rope.py:cpu \
    --workdir=runs/ladder/rope

Rotary positions in each layer instead of learned ones at the input.

Hardware: 2 CPU cores, 110 s. Result: 31.05 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import gpt2
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(gpt2.MODEL, positions='rope')


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
