"""A clip's language, which scales and shifts every branch (FiLM, 1709.07871).

python -m audiolm_jax.main --config=configs/lm/conditioning/language_film.py:cpu \
    --workdir=runs/conditioning/language_film

At the start it changes nothing. The clips' voices differ between languages, too.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'language', 'film')
