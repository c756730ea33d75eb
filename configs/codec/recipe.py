"""What the codec recipes share; each of them is a config of its own.

A recipe has three sizes. 'gpu' is the published training, on a corpus that you
bring. 'cpu' is the same losses on a small model, two CPU cores and the speech
prompts that `python tools/prepare_data.py` builds. 'smoke' runs every line of
it in a few steps, on synthetic speech
(`python tools/prepare_data.py --corpus=espeak_sentences --languages=en`).
"""

from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import optimizers

_SMALL = {
    'smoke': {'corpus': 'espeak_sentences', 'languages': ('en',)},
    'cpu': {'corpus': 'asterisk_prompts', 'languages': ('en', 'fr', 'es')},
}


def multi_mel(size, **options) -> distances_lib.LogMel:
  """DAC's mel distance at its seven scales; 'smoke' compiles but one."""
  if size == 'smoke':
    options = {**options, 'sizes': (512,), 'mels': (40,)}
  return distances_lib.LogMel(**options)


def judges(size, **published):
  """The recipe's own discriminators, or one that is cheap on CPUs."""
  if size == 'gpu':
    return published
  sizes = {}
  if size == 'smoke':
    sizes = {'sizes': (512,), 'width': 16, 'hidden': 16, 'blocks': 1}
  return {'frames': discriminators.FrameRate(**sizes)}


def adamw(schedule, *, b1, b2, decay=0.0, **options) -> train.ModelTraining:
  """How one model trains: AdamW; other options are of `train.ModelTraining`.

  Args:
    schedule: a learning rate, or one of `optimizers.SCHEDULES`.
    b1: of AdamW.
    b2: of AdamW.
    decay: of the weights.
    **options: clip, ema, ...
  """
  if isinstance(schedule, float):
    schedule = optimizers.Constant(learning_rate=schedule)
  return train.ModelTraining(
      optimizer=optimizers.AdamW(b1=b1, b2=b2, weight_decay=decay),
      schedule=schedule,
      **options,
  )


def build(
    size,
    *,
    codec,
    seconds,
    batch_size,
    steps,
    models,
    corpus,
    audio=None,
    **terms,
) -> train.Config:
  """The whole config.

  Args:
    size: 'smoke', 'cpu' or 'gpu'.
    codec: the tokenizer.
    seconds: of a row.
    batch_size: rows a step.
    steps: how many.
    models: {name: `adamw(...)`}.
    corpus: of 'gpu'.
    audio: further options of the data source of 'gpu'.
    **terms: fields of the objective.
  """
  source = _SMALL.get(size, {'corpus': corpus, **(audio or {})})
  return train.Config(
      objective=objectives.Codec(
          tokenizer=codec,
          # Recipes name their own distances.
          mel_weight=0.0,
          stft_weight=0.0,
          complex_weight=0.0,
          **terms,
      ),
      data=data.AudioCrops(crop_seconds=seconds, **source),
      models=models,
      steps=steps,
      batch_size=batch_size,
      log_every={'smoke': 1, 'cpu': 20, 'gpu': 100}[size],
      eval_every=steps,
      checkpoint=checkpoints.Config(every=max(1, min(10_000, steps // 2))),
  )
