"""A rung of the ladder: SwiGLU for GELU.

python -m audiolm_jax.main --config=configs/lm/ladder/swiglu.py:cpu \
    --workdir=runs/ladder/swiglu

The gate is a third matrix, so the hidden width shrinks to two thirds.

Hardware: 2 CPU cores, 120 s. Result: 30.89 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import rms_norm
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(rms_norm.MODEL, activation='swiglu')


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
