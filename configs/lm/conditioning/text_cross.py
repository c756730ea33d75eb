"""What a clip says, by cross-attention to its bytes.

python -m audiolm_jax.main --config=configs/lm/conditioning/text_cross.py:cpu \
    --workdir=runs/conditioning/text_cross

As MusicGen has it (2306.05284), with an encoder that is trained along. A clip
longer than a row is cropped, and its text still is that of all of it.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'text', 'cross')
