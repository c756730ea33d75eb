"""A rung of the ladder: RMSNorm for LayerNorm.

python -m audiolm_jax.main --config=configs/lm/ladder/rms_norm.py:cpu \
    --workdir=runs/ladder/rms_norm

RMSNorm takes no mean away and has no bias.

Hardware: 2 CPU cores, 120 s. Result: 31.04 bits a frame on 100 validation clips
(one seed; BENCHMARKS.md has the other rungs).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import rope
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(rope.MODEL, norm='rms')


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
