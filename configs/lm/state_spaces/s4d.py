"""S4D in the place of attention (2206.11893), the quickstart's budget.

python -m audiolm_jax.main --config=configs/lm/state_spaces/s4d.py:cpu \
    --workdir=runs/s4d

Linear in time and blind to content: what mixes time is one convolution in each
channel, trained by Fourier transforms and generating from a state of constant
size.

Hardware: 2 CPU cores. Time: 1.1 times the quickstart's (459 ms of CPU time a
gradient, its transformer 422). Expected, at a learning rate of
4e-3: 31.9 bits a frame on test clips cut to 256 frames, where the quickstart's
transformer needs 31.7 (experiments/state_spaces).
"""

from typing import Literal

from configs.lm.state_spaces import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  states, hidden = {'cpu': (64, 1216), 'smoke': (8, 128)}[arg]
  return recipe.build(
      arg,
      {
          'mixers': ({'kind': 's4d', 'state_width': states},),
          'mlp': recipe.dense(hidden),
      },
  )
