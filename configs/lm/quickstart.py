"""A small speech LM over codec tokens in two minutes on two CPU cores.

python -m audiolm_jax.main --config=configs/lm/quickstart.py:cpu \
    --workdir=runs/quickstart/lm \
    --config.data.cache=runs/quickstart/tokens

The first 4 codebooks of the codec in a delay pattern; a transformer of width
256 with 4 layers (5.2M parameters, 2.1M of them embeddings and heads). Rows are
single clips, cropped or padded to 128 frames (2.56 s): most clips are shorter,
and a row that starts where a clip starts is what whole clips are scored on.

Hardware: 2 CPU cores. Time: 100 s (`:smoke`: 20 s, most of it compiling).
Expected on test clips: 32.1 bits a frame, 5.74 of them in the first codebook;
an interpolated bigram needs 34.6 and 6.34 (printed by tools/report.py). `:gpu`
is a transformer of width 768 with 12 layers over rows of 512 frames, for the
tokens of a large corpus; it was built and traced here, not run.
"""

from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax import train
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers

CODEBOOKS = 4


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  steps = {'smoke': 20, 'cpu': 400, 'gpu': 100_000}[size]
  width, layers, heads, hidden = {
      'smoke': (64, 2, 2, 128),
      'cpu': (256, 4, 4, 1024),
      'gpu': (768, 12, 12, 3072),
  }[size]
  frames = {'smoke': 64, 'cpu': 128, 'gpu': 512}[size]
  return train.Config(
      objective=objectives.NLL(
          # From random vectors, 400 steps do not reach the bigram.
          init_embeddings=True,
          decoder=decoders.Decoder(
              vocabularies=(1024,) * CODEBOOKS,
              pattern=patterns.Delay(),
              backbone=stack_lib.Stack(
                  width=width,
                  layers=layers,
                  mixers=(attention.Attention(heads=heads),),
                  # Its gradient is 1.7x faster than SwiGLU's on CPUs.
                  mlp=mlps.Dense(hidden=hidden, activation='relu'),
                  dropout=0.1,
              ),
          ),
      ),
      data=data.TokenCrops(cache='runs/quickstart/tokens', frames=frames),
      evaluators={
          'lm': evaluation.Bits(
              clips=evaluation.TokenClips(
                  limit={'smoke': 10, 'cpu': 100, 'gpu': 500}[size],
                  # Few lengths, and so few shapes to compile.
                  max_frames=frames,
              ),
          )
      },
      models={
          'lm': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.1),
              schedule=optimizers.Cosine(
                  learning_rate=3e-4 if size == 'gpu' else 2e-3,
                  warmup_steps=min(1000, steps // 10),
              ),
              clip=1.0,
          )
      },
      steps=steps,
      # Few tokens a step: in two minutes the number of steps is what counts.
      batch_size={'smoke': 8, 'cpu': 8, 'gpu': 64}[size],
      log_every=10,
      eval_every=min(10_000, steps),
      checkpoint=checkpoints.Config(every=min(5000, steps // 2)),
  )
