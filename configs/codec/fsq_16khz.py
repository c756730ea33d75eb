"""One code without a codebook: X-Codec 2's quantiser (Ye et al. 2025), 16 kHz.

python -m audiolm_jax.main --config=configs/codec/fsq_16khz.py:gpu \
    --workdir=runs/fsq_16khz --config.data.corpus=librispeech

50 frames a second of one code of 65536 (800 bit/s): finite scalar quantisation
(Mentzer et al. 2023) of 8 dimensions with 4 values each. A convolutional
encoder, a decoder at frame rate with an inverse STFT.

Differences from X-Codec 2: no w2v-BERT beside the encoder, hence no semantic
reconstruction; ConvNeXt blocks in the decoder where theirs has a transformer.

Hardware: `:gpu` 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: encoder and decoder of width 192 at frame
rate, 4 codes of 1000 a frame (2 kbit/s). A step takes 0.4 s of one core; no
whole run was made, so no quality is claimed. `:smoke` compiles for half a
minute; its 4 steps are seconds.
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
  dimension = {'smoke': 8, 'cpu': 64, 'gpu': 1024}[size]
  blocks = {
      'smoke': {'width': 16, 'hidden': 16, 'blocks': 1},
      'cpu': {'width': 192, 'hidden': 576, 'blocks': 4},
      'gpu': {'width': 1024, 'hidden': 3072, 'blocks': 12},
  }[size]
  blocks['dimension'] = dimension
  encoder = parts.VocosEncoder(**blocks)
  quantiser = bottlenecks.Fsq(
      grid=(8, 5, 5, 5), groups=1 if size == 'smoke' else 4
  )
  if size == 'gpu':
    encoder = parts.DacEncoder(
        dimension=dimension,
        widths=(48, 96, 192, 384, 768, 1536),
        strides=(2, 2, 4, 4, 5),
    )
    quantiser = bottlenecks.Fsq(grid=(4,) * 8)
  return tokenizers.Codec(
      encoder=encoder,
      bottleneck=quantiser,
      decoder=parts.VocosDecoder(**blocks),
      sample_rate=16000,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec'),
      domain=('speech',),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  steps = {'smoke': 4, 'cpu': 10_000, 'gpu': 800_000}[size]
  warmup_steps = min(1000, steps // 4)
  schedule = optimizers.Cosine(learning_rate=1e-3, warmup_steps=warmup_steps)
  if size == 'gpu':
    schedule = optimizers.Constant(
        learning_rate=1e-4, warmup_steps=warmup_steps
    )
  training = recipe.adamw(schedule, b1=0.8, b2=0.9, clip=1.0)
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.2, 'cpu': 1.0, 'gpu': 6.0}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 64}[size],
      steps=steps,
      corpus='librispeech',
      distances={'multi_mel': recipe.multi_mel(size, weight=15.0)},
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size,
              periods=discriminators.MultiPeriod(),
              stft=discriminators.MultiScaleStft(),
          ),
          loss='least_squares',
          weight=1.0,
          feature_weight=1.0,
      ),
      models={'codec': training, 'discriminator': training},
  )
