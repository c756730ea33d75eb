"""AudioLM's second stage: coarse acoustic tokens, given the semantic ones.

python -m audiolm_jax.main --config=configs/lm/audiolm/coarse.py:cpu \
    --workdir=runs/audiolm/coarse

A row is all semantic tokens of its frames and then codebooks 2 to 4, frame by
frame. The token cache is that of semantic.py.

Hardware: 2 CPU cores. 5.2M parameters; a step is 108 GFLOPs, 3.8 times the
quickstart's. Its time, and the bits to expect, have not been measured.
"""

from typing import Literal

from configs.lm.audiolm import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  segments = (
      recipe.segment('semantic', range(1), 'observe'),
      recipe.segment('coarse', range(1, 4), 'predict'),
  )
  decoder = {'kind': 'stages', 'sequence': {'segments': segments}}
  return recipe.build(arg, decoder, codebooks=4, frames=128)
