"""A clip's speaker, as one position before its first frame.

python -m audiolm_jax.main --config=configs/lm/conditioning/speaker_prefix.py:cpu \
    --workdir=runs/conditioning/speaker_prefix

Speakers that are not in the list have the vector of no condition.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'speaker', 'prefix')
