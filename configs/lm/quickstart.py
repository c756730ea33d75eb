"""A small speech LM over codec tokens in two minutes on two CPU cores.

python -m audiolm_jax.main --config=configs/lm/quickstart.py:cpu \
    --workdir=runs/quickstart/lm \
    --config.data.cache=runs/quickstart/tokens \
    --config.objective.codebooks=runs/quickstart/tokens \
    --config.evaluators.lm.cache=runs/quickstart/tokens

The first 4 codebooks of the codec in a delay pattern; a transformer of width
256 with 4 layers (5.2M parameters, 2.1M of them embeddings and heads). Rows are
single clips, cropped or padded to 128 frames (2.56 s): most clips are shorter,
and a row that starts where a clip starts is what whole clips are scored on.

Hardware: 2 CPU cores. Time: 100 s (`:smoke`: 20 s, most of it compiling).
Expected on test clips: 32.1 bits a frame, 5.74 of them in the first codebook; an
interpolated bigram needs 34.6 and 6.34 (printed by tools/report.py).
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.training import optimizers

CODEBOOKS = 4


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  steps = {'cpu': 400, 'smoke': 20}[arg]
  width, layers, heads, hidden = {
      'cpu': (256, 4, 4, 1024),
      'smoke': (64, 2, 2, 128),
  }[arg]
  frames = {'cpu': 128, 'smoke': 64}[arg]
  tokens = 'runs/quickstart/tokens'
  return config.defaults(
      train.Config,
      objective=config.kind(
          objectives.OBJECTIVES,
          'lm',
          frames=frames,
          # From random vectors, 400 steps do not reach the bigram.
          codebooks=tokens,
          decoder={
              'kind': 'tokens',
              'vocabularies': (1024,) * CODEBOOKS,
              'pattern': {'kind': 'delay'},
              'backbone': {
                  'kind': 'stack',
                  'width': width,
                  'layers': layers,
                  'mixers': ({'kind': 'attention', 'heads': heads},),
                  # Its gradient is 1.7x faster than SwiGLU's on CPUs.
                  'mlp': {
                      'kind': 'dense',
                      'hidden': hidden,
                      'activation': 'relu',
                  },
                  'dropout': 0.1,
              },
          },
      ),
      data=config.kind(
          data.SOURCES,
          'tokens',
          cache=tokens,
          codebooks=CODEBOOKS,
          frames=frames,
      ),
      evaluators={
          'lm': config.kind(
              evaluation.EVALUATORS,
              'lm',
              cache=tokens,
              limit={'cpu': 100, 'smoke': 10}[arg],
              # Few lengths, and so few shapes to compile.
              max_frames=frames,
          )
      },
      models={
          'lm': {
              'optimizer': config.kind(
                  optimizers.OPTIMIZERS, 'adamw', weight_decay=0.1
              ),
              'schedule': config.kind(
                  optimizers.SCHEDULES,
                  'cosine',
                  learning_rate=2e-3,
                  warmup_steps=steps // 10,
              ),
              'clip': 1.0,
          }
      },
      steps=steps,
      # Few tokens a step: in two minutes the number of steps is what counts.
      batch_size=8,
      log_every=10,
      eval_every=steps,
      checkpoint={'every': steps // 2},
  )
