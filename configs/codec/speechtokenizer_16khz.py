"""SpeechTokenizer (Zhang et al. 2023), as its authors publish its training.

python -m audiolm_jax.main --config=configs/codec/speechtokenizer_16khz.py \
    --workdir=runs/speechtokenizer_16khz --config.data.corpus=librispeech \
    --config.data.features=FOLDER_OF_HUBERT

50 frames a second, 8 codebooks of 1024 (4 kbit/s), a bidirectional LSTM in the
encoder. The first codebook's vectors are drawn to HuBERT's features through a
linear map that stays with the codec.

Differences: mel filters of height 1 (theirs of equal area, which only matters
below the logarithm's floor), windows a quarter apart (theirs .23); all scales
of the discriminators are weight-normalised.

`data.features` holds one CLIP_ID.npy [frames, 768] a clip, at 50 frames a
second: the mean of all hidden states of hubert-base-ls960.

Hardware: 'full' 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 1.1M parameters, mel bands as
teacher. A step takes 0.9 s of one core; no whole run was made, so no quality is
claimed. `:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax.objectives import distillation as distillation_lib
from configs.codec import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  sizes = {
      'full': {'filters': 64, 'dimension': 1024, 'lstm_layers': 2},
      'cpu': {'filters': 8, 'dimension': 128, 'lstm_layers': 1},
      'smoke': {'filters': 2, 'dimension': 8, 'lstm_layers': 1},
  }[arg]
  codebooks, vocabulary = {
      'full': (8, 1024),
      'cpu': (8, 512),
      'smoke': (2, 16),
  }[arg]
  parts = {
      **sizes,
      'ratios': (8, 5, 4, 2),
      'conv_shortcut': True,
      'causal': False,
      'padding': 'reflect',
      'norm': 'weight',
  }
  if arg == 'full':
    teacher = config.kind(distillation_lib.TEACHERS, 'features', width=768)
  else:
    teacher = config.kind(distillation_lib.TEACHERS, 'log_mel', mels=80)
  codec = recipe.tokenizer(
      ('seanet', {**parts, 'bidirectional': True}),
      (
          'distilled_rvq',
          {
              'codebooks': codebooks,
              'vocabulary': vocabulary,
              'features': 768 if arg == 'full' else 80,
              'decay': 0.99,
              'initial': 'k_means',
              'candidates': vocabulary,
              'dropout': 0.0,
              'commitment_weight': 10.0,
          },
      ),
      ('seanet', parts),
      sample_rate=16000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
      auxiliary=('semantic distillation',),
      domain=('speech',),
  )
  mel = {'filters': 'htk', 'logarithm': 'natural'}
  steps = {'full': 500_000, 'cpu': 5_000, 'smoke': 4}[arg]
  training = recipe.model(1e-4, b1=0.9, b2=0.99, schedule='cosine')
  return recipe.build(
      arg,
      codec=codec,
      seconds={'full': 3.0, 'cpu': 1.0, 'smoke': 0.2}[arg],
      # Theirs is 6 a GPU.
      batch_size={'full': 48, 'cpu': 8, 'smoke': 2}[arg],
      steps=steps,
      corpus='librispeech',
      audio={'features': 'data/hubert', 'feature_rate': 50.0},
      distances={
          'waveform': recipe.distance('waveform', weight=500.0),
          'mel_1024': recipe.distance(
              'log_mel', weight=45.0, sizes=(1024,), mels=(80,), **mel
          ),
          'mel_shorter': recipe.distance(
              'log_mel',
              weight=1.0,
              sizes=(512, 256, 128),
              mels=(80, 80, 80),
              **mel,
          ),
      },
      gan={
          'discriminators': recipe.judges(
              arg,
              periods=recipe.discriminator('multi_period'),
              scales=recipe.discriminator('multi_scale'),
              stft=recipe.discriminator('multi_scale_stft'),
          ),
          'loss': 'least_squares',
          'reduction': 'sum',
          'weight': 1.0,
          'feature_weight': 2.0,
      },
      distillation={
          'teacher': teacher,
          'projection': False,
          'comparison': 'time',
          'weight': 120.0,
      },
      models={'codec': training, 'discriminator': training},
  )
