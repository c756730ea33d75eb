"""Continuous latents: stable-audio's VAE (Evans et al. 2024) at 16 kHz.

python -m audiolm_jax.main --config=configs/codec/vae_16khz.py \
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

Hardware: 'full' 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.6M parameters. It was built and
traced, not run, so no quality is claimed. `:smoke` compiles for half a minute;
its 4 steps are seconds.
"""

from typing import Literal

from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  first, width = {'full': (128, 64), 'cpu': (16, 32), 'smoke': (2, 4)}[arg]
  widths = tuple(first * multiple for multiple in (1, 1, 2, 4, 8))
  strides = (2, 4, 5, 8)
  codec = recipe.tokenizer(
      (
          'dac',
          {
              # Means and scales.
              'dimension': 2 * width,
              'widths': widths,
              'strides': strides,
              'activation': 'snake_beta',
          },
      ),
      ('vae', {'dimension': width, 'project': False, 'kl_weight': 2e-4}),
      (
          'dac',
          {
              'dimension': width,
              'widths': widths[::-1],
              'strides': strides[::-1],
              'activation': 'snake_beta',
              'tanh': False,
              'last_bias': False,
          },
      ),
      sample_rate=16000,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec'),
  )
  options = {'b1': 0.8, 'b2': 0.99, 'decay': 1e-3}
  warm = {'warmup_steps': {'full': 1000, 'cpu': 100, 'smoke': 1}[arg]}
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 1.5, 'cpu': 1.0, 'smoke': 0.2}[arg],
      batch_size={'full': 64, 'cpu': 8, 'smoke': 2}[arg],
      steps={'full': 1_000_000, 'cpu': 5_000, 'smoke': 4}[arg],
      corpus='librispeech',
      distances={
          'spectral': recipe.distance(
              'multi_resolution_stft',
              weight=1.0,
              **({'sizes': (512,)} if arg == 'smoke' else {}),
          )
      },
      gan={
          'discriminators': recipe.judges(
              arg,
              stft=recipe.discriminator('multi_scale_stft', filters=64),
          ),
          'loss': 'hinge_linear',
          'weight': 0.1,
          'feature_weight': 5.0,
      },
      models={
          'codec': recipe.model(
              {'learning_rate': 1.5e-4, **warm}, ema=0.999, **options
          ),
          'discriminator': recipe.model(
              {'learning_rate': 3e-4, **warm}, **options
          ),
      },
  )
