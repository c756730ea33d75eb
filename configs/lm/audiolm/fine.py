"""AudioLM's third stage: fine acoustic tokens, given the coarse ones.

python -m audiolm_jax.main --config=configs/lm/audiolm/fine.py:cpu \
    --workdir=runs/audiolm/fine

A row is codebooks 1 to 4 of its frames, and then 5 to 8. How a frame sounds in
detail is a matter of its neighbours: rows are half as long as before. The token
cache is that of semantic.py.

Hardware: 2 CPU cores. 7.3M parameters; a step is 106 GFLOPs, 3.8 times the
quickstart's. Its time, and the bits to expect, have not been measured.
"""

from typing import Literal

from configs.lm.audiolm import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  segments = (
      recipe.segment('coarse', range(4), 'observe'),
      recipe.segment('fine', range(4, 8), 'predict'),
  )
  decoder = {'kind': 'stages', 'sequence': {'segments': segments}}
  return recipe.build(arg, decoder, codebooks=8, frames=64)
