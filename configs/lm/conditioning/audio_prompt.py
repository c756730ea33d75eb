"""Three seconds of the same speaker in another clip, before the first frame.

python -m audiolm_jax.main --config=configs/lm/conditioning/audio_prompt.py:cpu \
    --workdir=runs/conditioning/audio_prompt

A tenth of the rows have none, so that `tools/generate.py --guidance=2
--condition=prompt=voice.wav` follows a voice more closely than it learned to.
"""

from typing import Literal

from configs.lm.conditioning import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(arg, 'prompt', 'prefix')
