"""What the codec recipes share; each of them is a config of its own.

A recipe has three sizes. 'full' is the published training, on a corpus that you
bring. 'cpu' is the same losses on a small model, two CPU cores and the speech
prompts that `python tools/prepare_data.py` builds. 'smoke' runs every line of
it in a few steps, on synthetic speech
(`python tools/prepare_data.py --corpus=espeak_sentences --languages=en`).
"""

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import optimizers

_SMALL = {
    'cpu': {'corpus': 'asterisk_prompts', 'languages': ('en', 'fr', 'es')},
    'smoke': {'corpus': 'espeak_sentences', 'languages': ('en',)},
}


def tokenizer(encoder, bottleneck, decoder, **options):
  """A codec of (kind, options) of its three parts."""
  return config.kind(
      tokenizers.TOKENIZERS,
      'codec',
      encoder=config.kind(parts.ENCODERS, encoder[0], **encoder[1]),
      bottleneck=config.kind(
          bottlenecks.BOTTLENECKS, bottleneck[0], **bottleneck[1]
      ),
      decoder=config.kind(parts.DECODERS, decoder[0], **decoder[1]),
      **options,
  )


def distance(kind, **options):
  """One of the distances of decoded audio."""
  return config.kind(distances_lib.DISTANCES, kind, **options)


def multi_mel(arg, **options):
  """DAC's mel distance at its seven scales; 'smoke' compiles but one."""
  if arg == 'smoke':
    options = {**options, 'sizes': (512,), 'mels': (40,)}
  return distance('log_mel', **options)


def discriminator(kind, **options):
  """One of the discriminators."""
  return config.kind(discriminators.DISCRIMINATORS, kind, **options)


def judges(arg, **full):
  """The recipe's own discriminators, or one that is cheap on CPUs."""
  if arg == 'full':
    return full
  sizes = {}
  if arg == 'smoke':
    sizes = {'sizes': (512,), 'width': 16, 'hidden': 16, 'blocks': 1}
  return {'frames': discriminator('frame_rate', **sizes)}


def model(learning_rate, *, b1, b2, schedule='constant', decay=0.0, **options):
  """How one model trains: AdamW; other options are of `train.ModelTraining`.

  Args:
    learning_rate: a number, or the fields of the schedule.
    b1: of AdamW.
    b2: of AdamW.
    schedule: its kind.
    decay: of the weights.
    **options: clip, ema, ...
  """
  fields = learning_rate
  if not isinstance(fields, dict):
    fields = {'learning_rate': learning_rate}
  return {
      'optimizer': config.kind(
          optimizers.OPTIMIZERS, 'adamw', b1=b1, b2=b2, weight_decay=decay
      ),
      'schedule': config.kind(optimizers.SCHEDULES, schedule, **fields),
      **options,
  }


def build(
    arg,
    *,
    codec,
    seconds,
    batch_size,
    steps,
    models,
    corpus,
    audio=None,
    **terms,
):
  """The whole config.

  Args:
    arg: 'full', 'cpu' or 'smoke'.
    codec: the tokenizer.
    seconds: of a row.
    batch_size: rows a step.
    steps: how many.
    models: {name: `model(...)`}.
    corpus: of 'full'.
    audio: further options of the data source of 'full'.
    **terms: fields of the objective.
  """
  source = _SMALL.get(arg, {'corpus': corpus, **(audio or {})})
  rate = codec.sample_rate
  return config.defaults(
      train.Config,
      objective=config.kind(
          objectives.OBJECTIVES,
          'codec',
          tokenizer=codec,
          samples=round(seconds * rate),
          # Recipes name their own distances.
          mel_weight=0.0,
          stft_weight=0.0,
          complex_weight=0.0,
          **terms,
      ),
      data=config.kind(
          data.SOURCES,
          'audio',
          sample_rate=rate,
          channels=codec.encoder.channels if 'channels' in codec.encoder else 1,
          crop_seconds=seconds,
          **source,
      ),
      models=models,
      steps=steps,
      batch_size=batch_size,
      log_every={'full': 100, 'cpu': 20, 'smoke': 1}[arg],
      eval_every=steps,
      checkpoint={'every': max(1, min(10_000, steps // 2))},
  )
