"""Hawk: RG-LRU in the place of attention (2402.19427), the quickstart's budget.

python -m audiolm_jax.main --config=configs/lm/state_spaces/rg_lru.py:cpu \
    --workdir=runs/rg_lru

Hardware: 2 CPU cores. Time: 1.0 times the quickstart's (423 ms of CPU time a
gradient, its transformer 422). Expected, at a learning rate of
4e-3: 31.7 bits a frame on test clips cut to 256 frames, as the quickstart's
transformer (experiments/state_spaces).
"""

from typing import Literal

from configs.lm.state_spaces import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  heads, hidden = {'cpu': (4, 1088), 'smoke': (2, 128)}[arg]
  return recipe.build(
      arg,
      {
          'mixers': ({'kind': 'rg_lru', 'heads': heads},),
          'mlp': recipe.dense(hidden),
      },
  )
