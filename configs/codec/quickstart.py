"""A causal 16 kHz speech codec in three minutes on two CPU cores.

python -m audiolm_jax.main --config=configs/codec/quickstart.py:cpu \
    --workdir=runs/quickstart/tokenizer

50 frames a second, 8 codebooks of 1024 (4 kbit/s; the first 4 alone work, at 2
kbit/s), 30 ms of delay beyond the frame. English, French and Spanish prompts;
`python tools/prepare_data.py` builds the corpus.

Hardware: 2 CPU cores. Time: 3.5 minutes (`:smoke`: English only, half a minute,
most of it compiling). Expected on 71 held-out English sentences: PESQ-wb 1.76
(other seeds: 1.90, 2.03) and STOI .90 from 8 codebooks, 1.59 and .88 from 4, 1.38
and .84 from 2 (printed by tools/evaluate_codec.py).
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import optimizers


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  steps = {'cpu': 950, 'smoke': 40}[arg]
  # Smoke compiles fast; no more than a test that every stage runs.
  sizes = {'cpu': {}, 'smoke': {'width': 64, 'hidden': 128, 'blocks': 1}}[arg]
  window_blocks = {'cpu': 1, 'smoke': 0}[arg]
  return config.defaults(
      train.Config,
      objective=config.kind(
          objectives.OBJECTIVES,
          'codec',
          tokenizer=config.kind(
              tokenizers.TOKENIZERS,
              'codec',
              encoder=config.kind(parts.ENCODERS, 'spectral', **sizes),
              bottleneck=config.kind(bottlenecks.BOTTLENECKS, 'rvq'),
              decoder=config.kind(
                  parts.DECODERS,
                  'spectral',
                  window_blocks=window_blocks,
                  **sizes,
              ),
          ),
          # The complex distance teaches phase (PESQ), the mel distance envelopes
          # (STOI); this balance learns both in the time there is.
          mel_weight=8.0,
          stft_weight=1.0,
          **({} if arg == 'cpu' else {'sizes': (512, 1024), 'mels': (40, 80)}),
      ),
      data=config.kind(
          data.SOURCES,
          'audio',
          corpus='asterisk_prompts',
          languages=('en', 'fr', 'es') if arg == 'cpu' else ('en',),
          gain_db=4.0,
      ),
      models={
          'codec': {
              'optimizer': config.kind(
                  optimizers.OPTIMIZERS, 'adamw', b1=0.8, b2=0.99
              ),
              'schedule': config.kind(
                  optimizers.SCHEDULES,
                  'cosine',
                  learning_rate=2e-3,
                  warmup_steps=min(100, steps // 4),
              ),
              'clip': 10.0,
              'ema': 0.995 if arg == 'cpu' else 0.9,
          }
      },
      steps=steps,
      batch_size=8,
      log_every=10,
      eval_every=steps,
      checkpoint={'every': steps // 2},
  )
