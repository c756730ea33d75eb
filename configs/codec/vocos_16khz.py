"""One codebook and Vocos' decoder: WavTokenizer (Ji et al. 2024) at 16 kHz.

python -m audiolm_jax.main --config=configs/codec/vocos_16khz.py:gpu \
    --workdir=runs/vocos_16khz --config.data.corpus=librispeech

50 frames a second, one codebook of 4096 (600 bit/s), EnCodec's encoder and a
decoder of ConvNeXt blocks at frame rate and an inverse STFT, with attention
before them: it does not stream (`prior='none'` and `causal=True` do).

Differences from WavTokenizer: 16 kHz rather than 24, so 50 frames a second
rather than 75; the discriminators are Vocos' (periods and resolutions, hinge).

Hardware: `:gpu` 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: encoder and decoder of width 192 at frame
rate, 8 codebooks of 1024. A step takes 1.0 s of one core; no whole run was
made, so no quality is claimed. `:smoke` compiles for half a minute; its 4 steps
are seconds.
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
  dimension = {'smoke': 8, 'cpu': 64, 'gpu': 512}[size]
  blocks = {
      'smoke': {'width': 16, 'hidden': 16, 'blocks': 1},
      'cpu': {'width': 192, 'hidden': 576, 'blocks': 4},
      'gpu': {'width': 768, 'hidden': 2304, 'blocks': 12},
  }[size]
  blocks['dimension'] = dimension
  encoder = parts.VocosEncoder(**blocks)
  if size == 'gpu':
    encoder = parts.SeanetEncoder(
        filters=32,
        dimension=dimension,
        ratios=(8, 5, 4, 2),
        conv_shortcut=True,
        padding='reflect',
        norm='weight',
    )
  codebooks, vocabulary = {
      'smoke': (2, 16),
      'cpu': (8, 1024),
      'gpu': (1, 4096),
  }[size]
  return tokenizers.Codec(
      encoder=encoder,
      bottleneck=bottlenecks.Rvq(
          codebooks=codebooks,
          vocabulary=vocabulary,
          decay=0.99,
          initial='k_means',
          candidates=vocabulary,
          iterations=200,
          dropout=0.0 if codebooks == 1 else 0.25,
          commitment_weight=1000.0 if size == 'gpu' else 0.5,
      ),
      decoder=parts.VocosDecoder(
          **blocks, prior='attention' if size == 'gpu' else 'none'
      ),
      sample_rate=16000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
      domain=('speech',),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  training = recipe.adamw(
      optimizers.Cosine(learning_rate=2e-4 if size == 'gpu' else 1e-3),
      b1=0.8 if size == 'cpu' else 0.9,
      b2=0.99 if size == 'cpu' else 0.999,
  )
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.2, 'cpu': 1.0, 'gpu': 3.0}[size],
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 320}[size],
      steps={'smoke': 4, 'cpu': 10_000, 'gpu': 1_000_000}[size],
      corpus='librispeech',
      distances={
          'mel_1024': distances_lib.LogMel(
              weight=45.0,
              sizes=(1024,),
              mels=(100,),
              filters='htk',
              logarithm='natural',
              floor=1e-7,
          ),
      },
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size,
              periods=discriminators.MultiPeriod(),
              bands=discriminators.MultiBandStft(),
          ),
          loss='hinge',
      ),
      models={'codec': training, 'discriminator': training},
  )
