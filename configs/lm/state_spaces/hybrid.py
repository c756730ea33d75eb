"""Griffin: two RG-LRU layers, one of local attention (2402.19427).

python -m audiolm_jax.main --config=configs/lm/state_spaces/hybrid.py:cpu \
    --workdir=runs/hybrid

The period is a list: any other hybrid is another list.

Hardware: 2 CPU cores. Time: 1.2 times the quickstart's (498 ms of CPU time a
gradient, its transformer 422). Expected: 31.5 bits a frame on test clips cut to
256 frames, where the quickstart's transformer needs 31.7 and an LSTM 31.6
(experiments/state_spaces).
"""

from typing import Literal

from configs.lm.state_spaces import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  layers, heads, window, hidden = {
      'cpu': (6, 4, 32, 544),
      'smoke': (3, 2, 8, 64),
  }[arg]
  recurrent = {'kind': 'rg_lru', 'heads': heads}
  local = {'kind': 'attention', 'heads': heads, 'window': window}
  return recipe.build(
      arg,
      {
          'layers': layers,
          'mixers': (recurrent, recurrent, local),
          'mlp': recipe.dense(hidden),
      },
  )
