"""EnCodec at 24 kHz (Defossez et al. 2022), trained as audiocraft has it.

python -m audiolm_jax.main --config=configs/codec/encodec_24khz.py:gpu \
    --workdir=runs/encodec_24khz --config.data.corpus=FOLDER

75 frames a second, 32 codebooks of 1024 (24 kbit/s; 2, 4, 8 and 16 of them
decode alone), causal: it streams. Spectral, waveform, adversarial and feature
losses through the gradient balancer.

Differences: audiocraft's own variant, which streams (zeros as padding, identity
shortcuts; the paper's reflects and convolves: `padding`, `conv_shortcut`).
Every row draws how many codebooks it uses, theirs every batch. Dead codes are
replaced (theirs are not, by a bug). The balanced gradient is a mean over rows,
theirs a sum over those of a GPU, so that the commitment weighs more here.

Hardware: `:gpu` 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 0.7M parameters and 8 codebooks. A
step takes 1.4 s of one core; no whole run was made, so no quality is claimed.
`:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import balancer as balancer_lib
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import config_files
from configs.codec import recipe


def _codec(size: str) -> tokenizers.Codec:
  options = {
      'smoke': {'filters': 2, 'dimension': 8, 'lstm_layers': 1},
      'cpu': {'filters': 8, 'dimension': 64, 'lstm_layers': 1},
      'gpu': {'filters': 32, 'dimension': 128, 'lstm_layers': 2},
  }[size]
  options |= {'ratios': (8, 5, 4, 2), 'norm': 'weight'}
  vocabulary = 16 if size == 'smoke' else 1024
  return tokenizers.Codec(
      encoder=parts.SeanetEncoder(**options),
      bottleneck=bottlenecks.Rvq(
          codebooks={'smoke': 2, 'cpu': 8, 'gpu': 32}[size],
          vocabulary=vocabulary,
          decay=0.99,
          initial='k_means',
          candidates=vocabulary,
          iterations=50,
          dropout=1.0,
          commitment_weight=1.0,
      ),
      decoder=parts.SeanetDecoder(**options),
      sample_rate=24000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  training = {'schedule': 3e-4, 'b1': 0.5, 'b2': 0.9}
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.2, 'cpu': 1.0, 'gpu': 1.0}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 64}[size],
      steps={'smoke': 4, 'cpu': 5_000, 'gpu': 400_000}[size],
      corpus='data/general_audio',
      distances={
          'waveform': distances_lib.Waveform(weight=0.1),
          'spectral': distances_lib.EncodecMel(
              weight=2.0,
              sizes=(512,) if size == 'smoke' else (64, 128, 256, 512, 1024),
              low=64.0,
          ),
      },
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size, stft=discriminators.MultiScaleStft(slope=0.3)
          ),
          loss='hinge',
          weight=4.0,
          feature_weight=4.0,
          balancer=balancer_lib.Balancer(decay=0.999, total_norm=1.0),
      ),
      models={
          'codec': recipe.adamw(**training, ema=0.99),
          'discriminator': recipe.adamw(**training),
      },
  )
