"""WaveNets over samples that differ in their head; all score the 16-bit grid.

python -m audiolm_jax.main --config=configs/lm/wavenet.py:mu_law,cpu \
    --workdir=runs/wavenet/mu_law

`:HEAD,cpu` is a small model at 8 kHz on the English prompts that `python
tools/prepare_data.py --corpus=asterisk_prompts --languages=en` builds.
`:HEAD,gpu` is 30 layers at 16 kHz on a corpus that you bring. `:HEAD,smoke`
runs every line in a few steps, on synthetic speech (`--corpus=espeak_sentences
--languages=en`).

Hardware: 'gpu' is one GPU (an estimate: it was built and traced here, not run).
'cpu' is 2 CPU cores: a step takes 1.0 s of one of them (measured), so some 4
minutes. None was run to the end, so nothing is claimed of the models. Their 54
clips (107 s) take 10.47 bits a sample by FLAC and 10.46 by linear prediction
(measured). 'smoke' is seconds and its compiling.
"""

from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers

# The head, and how samples come in (`wavenet.WaveNet.inputs`).
VARIANTS = {
    # As published (1609.03499): a softmax over 256 mu-law classes, and samples
    # come in by an embedding of their class. A class's probability is spread
    # evenly over its levels, so what it scores is the 16-bit grid: the softmax
    # cannot tell the levels of a class apart, and pays for them.
    'mu_law': (waveform_heads.MuLaw(classes=256), 'classes'),
    # A discretised mixture of 10 logistics (1701.05517, eq. 2). Samples come in
    # as amplitudes, so that all 16 bits are seen and scored.
    'logistics': (waveform_heads.Logistics(mixtures=10), 'amplitude'),
    # One Gaussian a sample, integrated over the grid's cells. As ClariNet's
    # teacher (1807.07281), but on the grid: its bits compare with those of the
    # other heads, where a density's would not.
    'gaussian': (waveform_heads.Gaussian(mixtures=1), 'amplitude'),
}
_STACKS = {
    'smoke': {'width': 8, 'skip': 8, 'dilations': (1, 2, 4), 'cycles': 1},
    'cpu': {
        'width': 32,
        'skip': 64,
        'dilations': tuple(2**i for i in range(9)),
        'cycles': 2,
    },
    'gpu': {'width': 128, 'skip': 256, 'cycles': 3, 'remat': True},
}
_CORPORA = {
    'smoke': {'corpus': 'espeak_sentences', 'languages': ('en',)},
    'cpu': {'corpus': 'asterisk_prompts', 'languages': ('en',)},
    'gpu': {'corpus': 'librispeech'},
}


def get_config(arg: str = 'mu_law,cpu') -> train.Config:
  """The config; `arg` is one of `VARIANTS` and a size."""
  name, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  head, inputs = VARIANTS[name]
  rate = {'smoke': 8000, 'cpu': 8000, 'gpu': 16000}[size]
  seconds = {'smoke': 0.05, 'cpu': 0.5, 'gpu': 1.0}[size]
  steps = {'smoke': 4, 'cpu': 400, 'gpu': 500_000}[size]
  return train.Config(
      objective=objectives.NLL(
          decoder=decoders.WaveNet(
              bits=16,
              inputs=inputs,
              stack=wavenet.GatedStack(**_STACKS[size]),
              head=head,
              # 16-bit amplitudes do not go through bfloat16.
              dtype='float32',
          ),
      ),
      data=data.AudioCrops(
          sample_rate=rate, crop_seconds=seconds, **_CORPORA[size]
      ),
      evaluators={
          'bits': evaluation.Bits(
              clips=evaluation.AudioClips(
                  **_CORPORA[size],
                  limit={'smoke': 2, 'cpu': 60, 'gpu': 200}[size],
                  max_seconds={'smoke': 0.5, 'cpu': 4.0, 'gpu': 8.0}[size],
              ),
              baselines=True,
          )
      },
      models={
          'lm': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.0),
              schedule=optimizers.Cosine(
                  learning_rate=1e-3 if size == 'gpu' else 4e-3,
                  warmup_steps=min(1000, steps // 10),
              ),
              clip=1.0,
              ema={'smoke': None, 'cpu': 0.98, 'gpu': 0.9999}[size],
          )
      },
      steps=steps,
      batch_size={'smoke': 2, 'cpu': 8, 'gpu': 32}[size],
      log_every={'smoke': 1, 'cpu': 20, 'gpu': 100}[size],
      eval_every=min(20_000, steps),
      checkpoint=checkpoints.Config(every=max(1, min(10_000, steps // 2))),
  )
