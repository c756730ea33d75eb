"""LSTMs in the place of layers: the baseline, at the quickstart's budget.

python -m audiolm_jax.main --config=configs/lm/state_spaces/lstm.py:cpu \
    --workdir=runs/lstm

Six residual layers of one LSTM each and no perceptrons.

Hardware: 2 CPU cores. Time: about the quickstart's. Expected, at a learning rate
of 4e-3 (2e-3, the quickstart's, was as good on validation): 31.6 bits a frame on
test clips cut to 256 frames (experiments/state_spaces).
"""

from typing import Literal

from configs.lm.state_spaces import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(
      arg,
      {
          'layers': {'cpu': 6, 'smoke': 2}[arg],
          'mixers': ({'kind': 'lstm', 'layers': 1, 'skip': False},),
          'mlp': None,
      },
  )
