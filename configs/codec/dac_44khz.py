"""DAC at 44.1 kHz (Kumar et al. 2023), as its authors publish its training.

python -m audiolm_jax.main --config=configs/codec/dac_44khz.py \
    --workdir=runs/dac_44khz --config.data.corpus=FOLDER

86 frames a second, 9 codebooks of 1024 in 8 dimensions (7.8 kbit/s).
Convolutions with Snake, learned codebooks looked up by direction, mel distance
in seven resolutions, discriminators of periods and of bands. It looks ahead, so
it does not stream (`causal=True` in both parts does).

Differences: weight decay, 0.01 as PyTorch's default, spares vectors; clips are
brought to -16 dB, theirs also get random phase shifts.

Hardware: 'full' 1 to 8 GPUs for days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.9M parameters at 44.1 kHz, on
speech of 16 kHz. It was built and traced, not run, so no quality is claimed.
`:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from typing import Literal

from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  first, last, dimension = {
      'full': (64, 1536, 1024),
      'cpu': (8, 128, 128),
      'smoke': (2, 16, 16),
  }[arg]
  codebooks, vocabulary = {
      'full': (9, 1024),
      'cpu': (9, 1024),
      'smoke': (2, 16),
  }[arg]
  codec = recipe.tokenizer(
      (
          'dac',
          {
              'dimension': dimension,
              'widths': tuple(first * 2**i for i in range(5)),
              'strides': (2, 4, 8, 8),
          },
      ),
      (
          'factorised_rvq',
          {
              'codebooks': codebooks,
              'vocabulary': vocabulary,
              'dimension': 8,
              'dropout': 0.5,
              'commitment_weight': 0.25,
              'codebook_weight': 1.0,
          },
      ),
      (
          'dac',
          {
              'dimension': dimension,
              'widths': tuple(last // 2**i for i in range(5)),
              'strides': (8, 8, 4, 2),
          },
      ),
      sample_rate=44100,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
  )
  training = recipe.model(
      1e-4 if arg == 'full' else 3e-4,
      b1=0.8,
      b2=0.99,
      schedule='exponential',
      decay=0.01,
  )
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 0.38, 'cpu': 0.38, 'smoke': 0.1}[arg],
      batch_size={'full': 72, 'cpu': 8, 'smoke': 2}[arg],
      steps={'full': 400_000, 'cpu': 5_000, 'smoke': 4}[arg],
      corpus='data/general_audio',
      audio={'level_db': -16.0},
      distances={'multi_mel': recipe.multi_mel(arg, weight=15.0)},
      gan={
          'discriminators': recipe.judges(
              arg,
              periods=recipe.discriminator('multi_period'),
              bands=recipe.discriminator('multi_band_stft'),
          ),
          'loss': 'least_squares',
          'reduction': 'sum',
          'weight': 1.0,
          'feature_weight': 2.0,
          'level': True,
      },
      models={
          'codec': {**training, 'clip': 1e3},
          'discriminator': {**training, 'clip': 10.0},
      },
  )
