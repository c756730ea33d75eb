"""The loop's own test run: a tiny regression on synthetic examples.

python -m audiolm_jax.main --config=configs/toy.py --workdir=/tmp/toy

Hardware: any. Time: about 5 seconds. Expected: eval/toy/squared_error below 0.2
(it starts near 1).
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.training import optimizers


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  steps = {'cpu': 400, 'smoke': 20}[arg]
  return config.defaults(
      train.Config,
      objective=config.kind(objectives.OBJECTIVES, 'toy'),
      data=config.kind(data.SOURCES, 'synthetic'),
      evaluators={'toy': config.kind(evaluation.EVALUATORS, 'toy')},
      models={
          'mlp': {
              'optimizer': config.kind(
                  optimizers.OPTIMIZERS, 'adamw', weight_decay=0.01
              ),
              'schedule': config.kind(
                  optimizers.SCHEDULES,
                  'cosine',
                  learning_rate=1e-2,
                  warmup_steps=10,
              ),
              'clip': 1.0,
              'ema': 0.99,
          }
      },
      steps=steps,
      batch_size=16,
      log_every=10,
      eval_every=steps // 2,
      checkpoint={'every': steps // 2, 'best': 'eval/toy/squared_error'},
  )
