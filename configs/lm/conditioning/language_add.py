"""A clip's language, as a vector added to the input of every step.

python -m audiolm_jax.main --config=configs/lm/conditioning/language_add.py:cpu \
    --workdir=runs/conditioning/language_add

The cheapest way there is. The clips' voices differ between languages, too.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'language', 'add')
