"""Continuous latents: stable-audio's VAE (Evans et al. 2024) at 16 kHz.

python -m audiolm_jax.main --config=configs/codec/vae_16khz.py:gpu \
    --workdir=runs/vae_16khz --config.data.corpus=librispeech

50 latents of 64 dimensions a second, normal distributions near the standard
one; Oobleck's convolutions on both sides. Multi-resolution STFT distance,
EnCodec's discriminators. It looks ahead, so it does not stream (`causal=True`
in both parts does).

Differences from stable-audio 2's: mono speech at 16 kHz, a hop of 320 (theirs
is stereo at 44.1 kHz, 21.5 latents a second), magnitudes without A-weighting,
and a constant learning rate after a warm-up (theirs then falls with the root of
the steps). Spectral convergence is of each row. Their KL leaves out the factor
1/2, so its weight here is twice theirs.

Hardware: `:gpu` 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.6M parameters. It was built and
traced, not run, so no quality is claimed. `:smoke` compiles for half a minute;
its 4 steps are seconds.
"""

from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import optimizers
from audiolm_jax.training import config_files
from configs.codec import recipe


def _codec(size: str) -> tokenizers.Codec:
  first, width = {'smoke': (2, 4), 'cpu': (16, 32), 'gpu': (128, 64)}[size]
  widths = tuple(first * multiple for multiple in (1, 1, 2, 4, 8))
  strides = (2, 4, 5, 8)
  return tokenizers.Codec(
      encoder=parts.DacEncoder(
          # Means and scales.
          dimension=2 * width,
          widths=widths,
          strides=strides,
          activation='snake_beta',
      ),
      bottleneck=bottlenecks.Vae(
          dimension=width, project=False, kl_weight=2e-4
      ),
      decoder=parts.DacDecoder(
          dimension=width,
          widths=widths[::-1],
          strides=strides[::-1],
          activation='snake_beta',
          tanh=False,
          last_bias=False,
      ),
      sample_rate=16000,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec'),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  options = {'b1': 0.8, 'b2': 0.99, 'decay': 1e-3}
  warm = {'warmup_steps': {'smoke': 1, 'cpu': 100, 'gpu': 1000}[size]}
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.2, 'cpu': 1.0, 'gpu': 1.5}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 64}[size],
      steps={'smoke': 4, 'cpu': 5_000, 'gpu': 1_000_000}[size],
      corpus='librispeech',
      distances={
          'spectral': distances_lib.MultiResolutionStft(
              weight=1.0, **({'sizes': (512,)} if size == 'smoke' else {})
          )
      },
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size, stft=discriminators.MultiScaleStft(filters=64)
          ),
          loss='hinge_linear',
          weight=0.1,
          feature_weight=5.0,
      ),
      models={
          'codec': recipe.adamw(
              optimizers.Constant(learning_rate=1.5e-4, **warm),
              ema=0.999,
              **options,
          ),
          'discriminator': recipe.adamw(
              optimizers.Constant(learning_rate=3e-4, **warm), **options
          ),
      },
  )
