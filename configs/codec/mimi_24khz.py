"""Mimi (Defossez et al. 2024, Moshi, section 3.3): 12.5 frames a second.

python -m audiolm_jax.main --config=configs/codec/mimi_24khz.py \
    --workdir=runs/mimi_24khz --config.data.corpus=FOLDER \
    --config.data.features=FOLDER_OF_WAVLM

A SEANet with a causal transformer on either side, a split quantiser of 1 + 31
codebooks of 2048 (8 of them: 1.1 kbit/s), streaming with frames of 80 ms.
Trained by adversarial and feature losses alone, and by distillation of WavLM
into the first codebook; half of the rows are not quantised.

Its training code was never released. From the paper: losses, rates, optimizer,
lengths. Guessed: the discriminators (EnCodec's) and their weights, that of
distillation, and that there is no balancer. The weight decay is of all
matrices, theirs of the transformers'.

`data.features` holds one CLIP_ID.npy [frames, 1024] a clip, at 50 frames a
second, made with WavLM-large.

Hardware: 'full' 8 GPUs for weeks (an estimate: it was built and traced here,
not run). `:cpu` is 2 cores: a codec of 1.4M parameters, with the mel distance
that a short training needs, and mel bands as teacher. A step takes 1.8 s of one
core; no whole run was made, so no quality is claimed. `:smoke` compiles for
half a minute; its 4 steps are seconds.
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax.objectives import distillation as distillation_lib
from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  filters, dimension, layers, heads = {
      'full': (64, 512, 8, 8),
      'cpu': (8, 128, 2, 4),
      'smoke': (2, 16, 1, 2),
  }[arg]
  parts = {
      'filters': filters,
      'dimension': dimension,
      'ratios': (8, 6, 5, 4),
      'last_kernel': 3,
      'norm': 'weight',
      'lstm_layers': 0,
      'transformer': {
          'layers': layers,
          'heads': heads,
          'mlp_width': 4 * dimension,
          'window': 250,
          'layer_scale': 0.01,
      },
      'resample': 2,
  }
  quantiser = {
      'full': {'acoustic': 31, 'vocabulary': 2048, 'dimension': 256},
      'cpu': {'acoustic': 7, 'vocabulary': 512, 'dimension': 64},
      'smoke': {'acoustic': 1, 'vocabulary': 16, 'dimension': 8},
  }[arg]
  codec = recipe.tokenizer(
      ('seanet', parts),
      ('split_rvq', quantiser),
      ('seanet', parts),
      sample_rate=24000,
      objective=('GAN', 'Feat', 'VQ'),
      auxiliary=('semantic distillation',),
      domain=('speech',),
  )
  if arg == 'full':
    teacher = config.kind(distillation_lib.TEACHERS, 'features', width=1024)
    mel = {}
  else:
    teacher = config.kind(distillation_lib.TEACHERS, 'log_mel', step=480)
    mel = {'spectral': recipe.multi_mel(arg)}
  training = recipe.model(
      8e-4 if arg == 'full' else 3e-4, b1=0.5, b2=0.9, decay=0.05
  )
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 12.0, 'cpu': 2.0, 'smoke': 0.32}[arg],
      batch_size={'full': 128, 'cpu': 8, 'smoke': 2}[arg],
      steps={'full': 4_000_000, 'cpu': 5_000, 'smoke': 4}[arg],
      corpus='data/speech',
      audio={'features': 'data/wavlm', 'feature_rate': 50.0},
      distances=mel,
      gan={
          'discriminators': recipe.judges(
              arg,
              stft=recipe.discriminator('multi_scale_stft', slope=0.3),
          ),
          'loss': 'hinge',
          'weight': 4.0,
          'feature_weight': 4.0,
      },
      unquantised_rate=0.5,
      distillation={
          'teacher': teacher,
          'comparison': 'frame',
          'weight': 1.0,
      },
      models={
          'codec': {**training, 'ema': 0.99},
          'discriminator': training,
          'distillation': training,
      },
  )
