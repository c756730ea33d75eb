"""Mimi (Defossez et al. 2024, Moshi, section 3.3): 12.5 frames a second.

python -m audiolm_jax.main --config=configs/codec/mimi_24khz.py:gpu \
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

Hardware: `:gpu` 8 GPUs for weeks (an estimate: it was built and traced here,
not run). `:cpu` is 2 cores: a codec of 1.4M parameters, with the mel distance
that a short training needs, and mel bands as teacher. A step takes 1.8 s of one
core; no whole run was made, so no quality is claimed. `:smoke` compiles for
half a minute; its 4 steps are seconds.
"""

from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import config_files
from configs.codec import recipe


def _codec(size: str) -> tokenizers.Codec:
  filters, dimension, layers, heads = {
      'smoke': (2, 16, 1, 2),
      'cpu': (8, 128, 2, 4),
      'gpu': (64, 512, 8, 8),
  }[size]
  options = {
      'filters': filters,
      'dimension': dimension,
      'ratios': (8, 6, 5, 4),
      'last_kernel': 3,
      'norm': 'weight',
      'lstm_layers': 0,
      'transformer': transformer_lib.Transformer(
          layers=layers,
          heads=heads,
          mlp_width=4 * dimension,
          window=250,
          layer_scale=0.01,
      ),
      'resample': 2,
  }
  quantiser = {
      'smoke': {'acoustic': 1, 'vocabulary': 16, 'dimension': 8},
      'cpu': {'acoustic': 7, 'vocabulary': 512, 'dimension': 64},
      'gpu': {'acoustic': 31, 'vocabulary': 2048, 'dimension': 256},
  }[size]
  return tokenizers.Codec(
      encoder=parts.SeanetEncoder(**options),
      bottleneck=bottlenecks.SplitRvq(**quantiser),
      decoder=parts.SeanetDecoder(**options),
      sample_rate=24000,
      objective=('GAN', 'Feat', 'VQ'),
      auxiliary=('semantic distillation',),
      domain=('speech',),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  teacher = distillation_lib.LogMel(step=480)
  mel = {'spectral': recipe.multi_mel(size)}
  if size == 'gpu':
    teacher, mel = distillation_lib.Features(width=1024), {}
  training = {
      'schedule': 8e-4 if size == 'gpu' else 3e-4,
      'b1': 0.5,
      'b2': 0.9,
      'decay': 0.05,
  }
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.32, 'cpu': 2.0, 'gpu': 12.0}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 128}[size],
      steps={'smoke': 4, 'cpu': 5_000, 'gpu': 4_000_000}[size],
      corpus='data/speech',
      audio={'features': 'data/wavlm'},
      distances=mel,
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size, stft=discriminators.MultiScaleStft(slope=0.3)
          ),
          loss='hinge',
          weight=4.0,
          feature_weight=4.0,
      ),
      unquantised_rate=0.5,
      distillation=distillation_lib.Distillation(
          teacher=teacher, comparison='frame', weight=1.0
      ),
      models={
          'codec': recipe.adamw(**training, ema=0.99),
          'discriminator': recipe.adamw(**training),
          'distillation': recipe.adamw(**training),
      },
  )
