"""A rung of the ladder: no dropout.

python -m audiolm_jax.main --config=configs/lm/ladder/no_dropout.py:cpu \
    --workdir=runs/ladder/no_dropout

Models that see each token once do without; whether small data allows it is what
this rung asks.
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import sinks
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(sinks.MODEL, dropout=False)


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
