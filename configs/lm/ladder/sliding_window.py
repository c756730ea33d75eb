"""A rung of the ladder: every other layer sees a sliding window only.

python -m audiolm_jax.main --config=configs/lm/ladder/sliding_window.py:cpu \
    --workdir=runs/ladder/sliding_window

The first of every two layers sees the last steps only (32, or 16 at the size
'smoke'; gpt-oss 128).

Hardware: 2 CPU cores, 200 s. Result: 30.96 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import moe
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(moe.MODEL, sliding=True)


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
