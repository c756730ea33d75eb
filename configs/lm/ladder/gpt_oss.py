"""The last rung of the ladder: gpt-oss's rotary frequencies for plain ones.

python -m audiolm_jax.main --config=configs/lm/ladder/gpt_oss.py:cpu \
    --workdir=runs/ladder/gpt_oss

Theta 150,000, and frequencies stretched from 4,096 to 131,072 positions by YaRN.
With this the block is gpt-oss's; what it has beside are sizes (128 experts, of
which a position meets 4; 8 query heads a key head; windows of 128).
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import clamped_swiglu
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(clamped_swiglu.MODEL, positions='yarn')


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
