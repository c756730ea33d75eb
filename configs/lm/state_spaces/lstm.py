"""LSTMs in the place of layers: the baseline, at the quickstart's budget.

python -m audiolm_jax.main --config=configs/lm/state_spaces/lstm.py:cpu \
    --workdir=runs/lstm

Six residual layers of one LSTM each and no perceptrons.
"""

from configs.lm.state_spaces import recipe


def get_config(arg: str = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  return recipe.build(
      arg,
      {
          'layers': {'cpu': 6, 'smoke': 2}[arg],
          'mixers': ({'kind': 'lstm', 'layers': 1, 'skip': False},),
          'mlp': None,
      },
  )
