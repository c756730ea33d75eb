"""A rung of the ladder: a mixture of experts for the dense perceptron.

python -m audiolm_jax.main --config=configs/lm/ladder/moe.py:cpu \
    --workdir=runs/ladder/moe

8 experts of half the hidden width, of which a position meets 2: four times the
perceptron's parameters at the same FLOPs. The objective adds the losses that
balance the experts and keep the router's logits small.
"""

import dataclasses

from configs.lm.ladder import gqa
from configs.lm.ladder import recipe

MODEL = dataclasses.replace(gqa.MODEL, experts=True)


def get_config(arg: str = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, MODEL)
