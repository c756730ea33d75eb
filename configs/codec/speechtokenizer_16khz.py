"""SpeechTokenizer (Zhang et al. 2023), as its authors publish its training.

python -m audiolm_jax.main --config=configs/codec/speechtokenizer_16khz.py:gpu \
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

Hardware: `:gpu` 8 GPUs for some days (an estimate: it was built and traced
here, not run). `:cpu` is 2 cores: a codec of 1.1M parameters, mel bands as
teacher. A step takes 0.9 s of one core; no whole run was made, so no quality is
claimed. `:smoke` compiles for half a minute; its 4 steps are seconds.
"""

from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import optimizers
from audiolm_jax.training import config_files
from configs.codec import recipe


def _codec(size: str) -> tokenizers.Codec:
  options = {
      'smoke': {'filters': 2, 'dimension': 8, 'lstm_layers': 1},
      'cpu': {'filters': 8, 'dimension': 128, 'lstm_layers': 1},
      'gpu': {'filters': 64, 'dimension': 1024, 'lstm_layers': 2},
  }[size]
  options |= {
      'ratios': (8, 5, 4, 2),
      'conv_shortcut': True,
      'causal': False,
      'padding': 'reflect',
      'norm': 'weight',
  }
  vocabulary = {'smoke': 16, 'cpu': 512, 'gpu': 1024}[size]
  return tokenizers.Codec(
      encoder=parts.SeanetEncoder(**options, bidirectional=True),
      bottleneck=bottlenecks.DistilledRvq(
          codebooks=2 if size == 'smoke' else 8,
          vocabulary=vocabulary,
          features=768 if size == 'gpu' else 80,
          decay=0.99,
          initial='k_means',
          candidates=vocabulary,
          dropout=0.0,
          commitment_weight=10.0,
      ),
      decoder=parts.SeanetDecoder(**options),
      sample_rate=16000,
      objective=('GAN', 'Feat', 'Rec', 'VQ'),
      auxiliary=('semantic distillation',),
      domain=('speech',),
  )


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  teacher = distillation_lib.LogMel(mels=80)
  if size == 'gpu':
    teacher = distillation_lib.Features(width=768)
  mel = {'filters': 'htk', 'logarithm': 'natural'}
  steps = {'smoke': 4, 'cpu': 5_000, 'gpu': 500_000}[size]
  training = recipe.adamw(
      optimizers.Cosine(learning_rate=1e-4), b1=0.9, b2=0.99
  )
  return recipe.build(
      size,
      codec=_codec(size),
      seconds={'smoke': 0.2, 'cpu': 1.0, 'gpu': 3.0}[size],
      # Theirs is 6 a GPU.
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 48}[size],
      steps=steps,
      corpus='librispeech',
      audio={'features': 'data/hubert'},
      distances={
          'waveform': distances_lib.Waveform(weight=500.0),
          'mel_1024': distances_lib.LogMel(
              weight=45.0, sizes=(1024,), mels=(80,), **mel
          ),
          'mel_shorter': distances_lib.LogMel(
              weight=1.0, sizes=(512, 256, 128), mels=(80, 80, 80), **mel
          ),
      },
      gan=gan_lib.Gan(
          discriminators=recipe.judges(
              size,
              periods=discriminators.MultiPeriod(),
              scales=discriminators.MultiScale(),
              stft=discriminators.MultiScaleStft(),
          ),
          loss='least_squares',
          reduction='sum',
          weight=1.0,
          feature_weight=2.0,
      ),
      distillation=distillation_lib.Distillation(
          teacher=teacher, projection=False, comparison='time', weight=120.0
      ),
      models={'codec': training, 'discriminator': training},
  )
