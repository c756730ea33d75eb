"""DAC at 44.1 kHz (Kumar et al. 2023), as its authors publish its training.

python -m audiolm_jax.main --config=configs/codec/dac_44khz.py:gpu \
    --workdir=runs/dac_44khz --config.data.corpus=FOLDER

86 frames a second, 9 codebooks of 1024 in 8 dimensions (7.8 kbit/s).
Convolutions with Snake, learned codebooks looked up by direction, mel distance
in seven resolutions, discriminators of periods and of bands. It looks ahead, so
it does not stream (`causal=True` in both parts does).

Differences: weight decay, 0.01 as PyTorch's default, spares vectors; clips are
brought to -16 dB, theirs also get random phase shifts.

Hardware: `:gpu` 1 to 8 GPUs for days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.9M parameters at 44.1 kHz, on
speech of 16 kHz. It was built and traced, not run, so no quality is claimed.
`:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import optimizers
from audiolm_jax.training import config_files
from configs.codec import recipe


def _codec(size: str) -> tokenizers.Codec:
  first, last, dimension = {
      'smoke': (2, 16, 16),
      'cpu': (8, 128, 128),
      'gpu': (64, 1536, 1024),
  }[size]
  return tokenizers.Codec(
      encoder=parts.DacEncoder(
          dimension=dimension,
          widths=tuple(first * 2**i for i in range(5)),
          strides=(2, 4, 8, 8),
      ),
      bottleneck=bottlenecks.FactorisedRvq(
          codebooks=2 if size == 'smoke' else 9,
          vocabulary=16 if size == 'smoke' else 1024,
          dimension=8,
          dropout=0.5,
          commitment_weight=0.25,
          codebook_weight=1.0,
      ),
      decoder=parts.DacDecoder(
          dimension=dimension,
          widths=tuple(last // 2**i for i in range(5)),
          strides=(8, 8, 4, 2),
      ),
      sample_rate=44100,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  training = {
      'schedule': optimizers.Exponential(
          learning_rate=1e-4 if size == 'gpu' else 3e-4
      ),
      'b1': 0.8,
      'b2': 0.99,
      'decay': 0.01,
  }
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.1, 'cpu': 0.38, 'gpu': 0.38}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 72}[size],
      steps={'smoke': 4, 'cpu': 5_000, 'gpu': 400_000}[size],
      corpus='data/general_audio',
      audio={'level_db': -16.0},
      distances={'multi_mel': recipe.multi_mel(size, weight=15.0)},
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size,
              periods=discriminators.MultiPeriod(),
              bands=discriminators.MultiBandStft(),
          ),
          loss='least_squares',
          reduction='sum',
          weight=1.0,
          feature_weight=2.0,
          level=True,
      ),
      models={
          'codec': recipe.adamw(**training, clip=1e3),
          'discriminator': recipe.adamw(**training, clip=10.0),
      },
  )
