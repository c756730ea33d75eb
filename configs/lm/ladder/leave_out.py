"""gpt-oss's block without one of its ingredients.

python -m audiolm_jax.main --config=configs/lm/ladder/leave_out.py:sinks \
    --workdir=runs/ladder/without_sinks

The rungs add one ingredient after the other, so that what each is worth depends
on those before; here each is missed by itself. The argument is a field of
`recipe.Model` (positions, norm, activation, grouped, experts, sliding, sinks,
dropout), which gets GPT-2's value; the size is 'cpu'.
"""

import dataclasses
from typing import Literal

from configs.lm.ladder import gpt2
from configs.lm.ladder import gpt_oss
from configs.lm.ladder import recipe


def get_config(
    arg: Literal[
        'positions',
        'norm',
        'activation',
        'grouped',
        'experts',
        'sliding',
        'sinks',
        'dropout',
    ] = 'sinks',
):
  """The config; `arg` names what is left out."""
  value = getattr(gpt2.MODEL, arg)
  return recipe.build('cpu', dataclasses.replace(gpt_oss.MODEL, **{arg: value}))
