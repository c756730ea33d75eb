"""One code without a codebook: X-Codec 2's quantiser (Ye et al. 2025), 16 kHz.

python -m audiolm_jax.main --config=configs/codec/fsq_16khz.py \
    --workdir=runs/fsq_16khz --config.data.corpus=librispeech

50 frames a second of one code of 65536 (800 bit/s): finite scalar quantisation
(Mentzer et al. 2023) of 8 dimensions with 4 values each. A convolutional
encoder, a decoder at frame rate with an inverse STFT.

Differences from X-Codec 2: no w2v-BERT beside the encoder, hence no semantic
reconstruction; ConvNeXt blocks in the decoder where theirs has a transformer.

Hardware: 'full' 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: encoder and decoder of width 192 at frame
rate, 4 codes of 1000 a frame (2 kbit/s). A step takes 0.4 s of one core; no
whole run was made, so no quality is claimed. `:smoke` compiles for half a
minute; its 4 steps are seconds.
"""

from typing import Literal

from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  blocks = {
      'full': {'width': 1024, 'hidden': 3072, 'blocks': 12},
      'cpu': {'width': 192, 'hidden': 576, 'blocks': 4},
      'smoke': {'width': 16, 'hidden': 16, 'blocks': 1},
  }[arg]
  dimension = {'full': 1024, 'cpu': 64, 'smoke': 8}[arg]
  encoder = 'vocos', {**blocks, 'dimension': dimension}
  quantiser = {'grid': (8, 5, 5, 5), 'groups': 1 if arg == 'smoke' else 4}
  if arg == 'full':
    encoder = (
        'dac',
        {
            'dimension': dimension,
            'widths': (48, 96, 192, 384, 768, 1536),
            'strides': (2, 2, 4, 4, 5),
        },
    )
    quantiser = {'grid': (4,) * 8}
  codec = recipe.tokenizer(
      encoder,
      ('fsq', quantiser),
      ('vocos', {**blocks, 'dimension': dimension}),
      sample_rate=16000,
      whole_frames=True,
      objective=('GAN', 'Feat', 'Rec'),
      domain=('speech',),
  )
  steps = {'full': 800_000, 'cpu': 10_000, 'smoke': 4}[arg]
  training = recipe.model(
      {
          'learning_rate': 1e-4 if arg == 'full' else 1e-3,
          'warmup_steps': min(1000, steps // 4),
      },
      b1=0.8,
      b2=0.9,
      schedule='constant' if arg == 'full' else 'cosine',
  )
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 6.0, 'cpu': 1.0, 'smoke': 0.2}[arg],
      batch_size={'full': 64, 'cpu': 8, 'smoke': 2}[arg],
      steps=steps,
      corpus='librispeech',
      distances={'multi_mel': recipe.multi_mel(arg, weight=15.0)},
      gan={
          'discriminators': recipe.judges(
              arg,
              periods=recipe.discriminator('multi_period'),
              stft=recipe.discriminator('multi_scale_stft'),
          ),
          'loss': 'least_squares',
          'weight': 1.0,
          'feature_weight': 1.0,
      },
      models={
          'codec': {**training, 'clip': 1.0},
          'discriminator': {**training, 'clip': 1.0},
      },
  )
