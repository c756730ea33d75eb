"""What a clip says, as positions before its first frame.

python -m audiolm_jax.main --config=configs/lm/conditioning/text_prefix.py:cpu \
    --workdir=runs/conditioning/text_prefix

As a decoder-only model of text and speech has it, but that the text is not
predicted and has an encoder of its own (compare configs/lm/text_to_speech.py).
A clip longer than a row is cropped, and its text still is that of all of it.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'text', 'prefix')
