"""Mamba-2 (2405.21060): mixers without perceptrons, the quickstart's budget.

python -m audiolm_jax.main --config=configs/lm/state_spaces/mamba2.py:cpu \
    --workdir=runs/mamba2

Hardware: 2 CPU cores. Time: 2.3 times the quickstart's (951 ms of CPU time a
gradient, its transformer 422). Expected: 31.3 bits a frame on test clips cut
to 256 frames, where the quickstart's transformer needs 31.7
(experiments/state_spaces).
"""

from typing import Literal

from configs.lm.state_spaces import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  layers, states, heads, chunk = {
      'cpu': (7, 64, 64, 64),
      'smoke': (2, 8, 32, 16),
  }[arg]
  mixer = {
      'kind': 'mamba2',
      'state_width': states,
      'head_width': heads,
      'chunk': chunk,
  }
  return recipe.build(arg, {'layers': layers, 'mixers': (mixer,), 'mlp': None})
