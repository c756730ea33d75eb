"""A rung of the ladder: grouped queries for one key head a query head.

python -m audiolm_jax.main --config=configs/lm/ladder/gqa.py:cpu \
    --workdir=runs/ladder/gqa

Two query heads share a key head: the cache of keys and values halves.

Hardware: 2 CPU cores, 110 s. Result: 30.88 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import swiglu
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(swiglu.MODEL, grouped=True)


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
