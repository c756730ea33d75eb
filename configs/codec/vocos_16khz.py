"""One codebook and Vocos' decoder: WavTokenizer (Ji et al. 2024) at 16 kHz.

python -m audiolm_jax.main --config=configs/codec/vocos_16khz.py \
    --workdir=runs/vocos_16khz --config.data.corpus=librispeech

50 frames a second, one codebook of 4096 (600 bit/s), EnCodec's encoder and a
decoder of ConvNeXt blocks at frame rate and an inverse STFT, with attention
before them: it does not stream (`prior='none'` and `causal=True` do).

Differences from WavTokenizer: 16 kHz rather than 24, so 50 frames a second
rather than 75; the discriminators are Vocos' (periods and resolutions, hinge).

Hardware: 'full' 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: encoder and decoder of width 192 at frame
rate, 8 codebooks of 1024. A step takes 1.0 s of one core; no whole run was
made, so no quality is claimed. `:smoke` compiles for half a minute; its 4 steps
are seconds.
"""

from typing import Literal

from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  blocks = {
      'full': {'width': 768, 'hidden': 2304, 'blocks': 12},
      'cpu': {'width': 192, 'hidden': 576, 'blocks': 4},
      'smoke': {'width': 16, 'hidden': 16, 'blocks': 1},
  }[arg]
  dimension = {'full': 512, 'cpu': 64, 'smoke': 8}[arg]
  encoder = 'vocos', {**blocks, 'dimension': dimension}
  prior = 'none'
  if arg == 'full':
    prior = 'attention'
    encoder = (
        'seanet',
        {
            'filters': 32,
            'dimension': dimension,
            'ratios': (8, 5, 4, 2),
            'conv_shortcut': True,
            'padding': 'reflect',
            'norm': 'weight',
        },
    )
  codebooks, vocabulary = {
      'full': (1, 4096),
      'cpu': (8, 1024),
      'smoke': (2, 16),
  }[arg]
  codec = recipe.tokenizer(
      encoder,
      (
          'rvq',
          {
              'codebooks': codebooks,
              'vocabulary': vocabulary,
              'decay': 0.99,
              'initial': 'k_means',
              'candidates': vocabulary,
              'iterations': 200,
              'dropout': 0.0 if codebooks == 1 else 0.25,
              'commitment_weight': 1000.0 if arg == 'full' else 0.5,
          },
      ),
      ('vocos', {**blocks, 'dimension': dimension, 'prior': prior}),
      sample_rate=16000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
      domain=('speech',),
  )
  steps = {'full': 1_000_000, 'cpu': 10_000, 'smoke': 4}[arg]
  training = recipe.model(
      {'learning_rate': 2e-4 if arg == 'full' else 1e-3},
      b1=0.8 if arg == 'cpu' else 0.9,
      b2=0.99 if arg == 'cpu' else 0.999,
      schedule='cosine',
  )
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 3.0, 'cpu': 1.0, 'smoke': 0.2}[arg],
      batch_size={'full': 320, 'cpu': 8, 'smoke': 2}[arg],
      steps=steps,
      corpus='librispeech',
      distances={
          'mel_1024': recipe.distance(
              'log_mel',
              weight=45.0,
              sizes=(1024,),
              mels=(100,),
              filters='htk',
              logarithm='natural',
              floor=1e-7,
          ),
      },
      gan={
          'discriminators': recipe.judges(
              arg,
              periods=recipe.discriminator('multi_period'),
              bands=recipe.discriminator('multi_band_stft'),
          ),
          'loss': 'hinge',
      },
      models={'codec': training, 'discriminator': training},
  )
