"""A rung of the ladder: gpt-oss's clamped SwiGLU for the plain one.

python -m audiolm_jax.main --config=configs/lm/ladder/clamped_swiglu.py:cpu \
    --workdir=runs/ladder/clamped_swiglu

(up + 1) gate sigmoid(1.702 gate), with gate and up clamped at 7.
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import no_dropout
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(no_dropout.MODEL, activation='clamped_swiglu')


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
