"""EnCodec at 24 kHz (Defossez et al. 2022), trained as audiocraft has it.

python -m audiolm_jax.main --config=configs/codec/encodec_24khz.py \
    --workdir=runs/encodec_24khz --config.data.corpus=FOLDER

75 frames a second, 32 codebooks of 1024 (24 kbit/s; 2, 4, 8 and 16 of them
decode alone), causal: it streams. Spectral, waveform, adversarial and feature
losses through the gradient balancer.

Differences: audiocraft's own variant, which streams (zeros as padding, identity
shortcuts; the paper's reflects and convolves: `padding`, `conv_shortcut`).
Every row draws how many codebooks it uses, theirs every batch. Dead codes are
replaced (theirs are not, by a bug). The balanced gradient is a mean over rows,
theirs a sum over those of a GPU, so that the commitment weighs more here.

Hardware: 'full' 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.7M parameters and 8 codebooks. A
step takes 1.4 s of one core; no whole run was made, so no quality is claimed.
`:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from typing import Literal

from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  sizes = {
      'full': {'filters': 32, 'dimension': 128, 'lstm_layers': 2},
      'cpu': {'filters': 8, 'dimension': 64, 'lstm_layers': 1},
      'smoke': {'filters': 2, 'dimension': 8, 'lstm_layers': 1},
  }[arg]
  codebooks, vocabulary = {
      'full': (32, 1024),
      'cpu': (8, 1024),
      'smoke': (2, 16),
  }[arg]
  parts = {**sizes, 'ratios': (8, 5, 4, 2), 'norm': 'weight'}
  codec = recipe.tokenizer(
      ('seanet', parts),
      (
          'rvq',
          {
              'codebooks': codebooks,
              'vocabulary': vocabulary,
              'decay': 0.99,
              'initial': 'k_means',
              'candidates': vocabulary,
              'iterations': 50,
              'dropout': 1.0,
              'commitment_weight': 1.0,
          },
      ),
      ('seanet', parts),
      sample_rate=24000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
  )
  training = recipe.model(3e-4, b1=0.5, b2=0.9)
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 1.0, 'cpu': 1.0, 'smoke': 0.2}[arg],
      batch_size={'full': 64, 'cpu': 8, 'smoke': 2}[arg],
      steps={'full': 400_000, 'cpu': 5_000, 'smoke': 4}[arg],
      corpus='data/general_audio',
      distances={
          'waveform': recipe.distance('waveform', weight=0.1),
          'spectral': recipe.distance(
              'encodec_mel',
              weight=2.0,
              sizes=(512,) if arg == 'smoke' else (64, 128, 256, 512, 1024),
              low=64.0,
          ),
      },
      gan={
          'discriminators': recipe.judges(
              arg,
              stft=recipe.discriminator('multi_scale_stft', slope=0.3),
          ),
          'loss': 'hinge',
          'weight': 4.0,
          'feature_weight': 4.0,
          'balancer': {'decay': 0.999, 'total_norm': 1.0},
      },
      models={'codec': {**training, 'ema': 0.99}, 'discriminator': training},
  )
