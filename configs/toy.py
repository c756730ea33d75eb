"""The loop's own test run: a tiny regression on synthetic examples.

python -m audiolm_jax.main --config=configs/toy.py --workdir=/tmp/toy

Hardware: any. Time: about 5 seconds. Expected: eval/toy/squared_error below 0.2
(it starts near 1). `:smoke` is 20 steps; `:gpu` is `:cpu`, on whatever device
there is.
"""

from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  steps = 20 if size == 'smoke' else 400
  return train.Config(
      objective=objectives.Toy(),
      data=data.Synthetic(),
      evaluators={'toy': evaluation.ToyError()},
      models={
          'mlp': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.01),
              schedule=optimizers.Cosine(learning_rate=1e-2, warmup_steps=10),
              clip=1.0,
              ema=0.99,
          )
      },
      steps=steps,
      batch_size=16,
      log_every=10,
      eval_every=steps // 2,
      checkpoint=checkpoints.Config(
          every=steps // 2, best='eval/toy/squared_error'
      ),
  )
