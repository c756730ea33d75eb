"""A rung of the ladder: attention sinks, so that heads may attend to nothing.

python -m audiolm_jax.main --config=configs/lm/ladder/sinks.py:cpu \
    --workdir=runs/ladder/sinks

A learned logit in each head's softmax that has no value.
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import sliding_window
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(sliding_window.MODEL, sinks=True)


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
