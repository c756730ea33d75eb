"""What the WaveNet configs share: they differ in the head (and its input).

'full' is 30 layers at 16 kHz on a corpus that you bring; 'cpu' a small model at
8 kHz on the English prompts that `python tools/prepare_data.py
--corpus=asterisk_prompts --languages=en` builds; 'smoke' runs every line in a
few steps, on synthetic speech (`--corpus=espeak_sentences --languages=en`).
"""

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.training import optimizers

_STACKS = {
    'full': {'width': 128, 'skip': 256, 'cycles': 3, 'remat': True},
    'cpu': {
        'width': 32,
        'skip': 64,
        'dilations': tuple(2**i for i in range(9)),
        'cycles': 2,
    },
    'smoke': {'width': 8, 'skip': 8, 'dilations': (1, 2, 4), 'cycles': 1},
}
_CORPORA = {
    'full': {'corpus': 'librispeech'},
    'cpu': {'corpus': 'asterisk_prompts', 'languages': ('en',)},
    'smoke': {'corpus': 'espeak_sentences', 'languages': ('en',)},
}


def build(arg, *, head, inputs):
  """The whole config.

  Args:
    arg: 'full', 'cpu' or 'smoke'.
    head: its kind and options.
    inputs: how samples come in (`wavenet.WaveNet.inputs`).
  """
  rate = {'full': 16000, 'cpu': 8000, 'smoke': 8000}[arg]
  seconds = {'full': 1.0, 'cpu': 0.5, 'smoke': 0.05}[arg]
  steps = {'full': 500_000, 'cpu': 400, 'smoke': 4}[arg]
  corpus = _CORPORA[arg]
  return config.defaults(
      train.Config,
      objective=config.kind(
          objectives.OBJECTIVES,
          'waveform_lm',
          decoder=config.kind(
              decoders.LM_KINDS,
              'wavenet',
              bits=16,
              inputs=inputs,
              stack=_STACKS[arg],
              head=head,
              # 16-bit amplitudes do not go through bfloat16.
              dtype='float32',
          ),
          samples=round(seconds * rate),
          sample_rate=rate,
      ),
      data=config.kind(
          data.SOURCES,
          'audio',
          sample_rate=rate,
          crop_seconds=seconds,
          **corpus,
      ),
      evaluators={
          'bits': config.kind(
              evaluation.EVALUATORS,
              'waveform',
              **corpus,
              limit={'full': 200, 'cpu': 60, 'smoke': 2}[arg],
              max_seconds={'full': 8.0, 'cpu': 4.0, 'smoke': 0.5}[arg],
              baselines=True,
          )
      },
      models={
          'lm': {
              'optimizer': config.kind(
                  optimizers.OPTIMIZERS, 'adamw', weight_decay=0.0
              ),
              'schedule': config.kind(
                  optimizers.SCHEDULES,
                  'cosine',
                  learning_rate={'full': 1e-3, 'cpu': 4e-3, 'smoke': 4e-3}[arg],
                  warmup_steps=min(1000, steps // 10),
              ),
              'clip': 1.0,
              'ema': {'full': 0.9999, 'cpu': 0.98, 'smoke': None}[arg],
          }
      },
      steps=steps,
      batch_size={'full': 32, 'cpu': 8, 'smoke': 2}[arg],
      log_every={'full': 100, 'cpu': 20, 'smoke': 1}[arg],
      eval_every={'full': 20_000}.get(arg, steps),
      checkpoint={'every': max(1, min(10_000, steps // 2))},
  )
