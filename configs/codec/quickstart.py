"""A causal 16 kHz speech codec in three minutes on two CPU cores.

python -m audiolm_jax.main --config=configs/codec/quickstart.py:cpu \
    --workdir=runs/quickstart/tokenizer

50 frames a second, 8 codebooks of 1024 (4 kbit/s; the first 4 alone work, at 2
kbit/s), 30 ms of delay beyond the frame. English, French and Spanish prompts;
`python tools/prepare_data.py` builds the corpus.

Hardware: 2 CPU cores. Time: 3.5 minutes (`:smoke`: English only, half a minute,
most of it compiling). Expected on 71 held-out English sentences: PESQ-wb 1.76
(other seeds: 1.90, 2.03) and STOI .90 from 8 codebooks, 1.59 and .88 from 4,
1.38 and .84 from 2 (printed by tools/evaluate_codec.py). `:gpu` is the same
model for longer, in larger batches; it was built and traced here, not run.
"""

from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  small = size == 'smoke'
  steps = {'smoke': 40, 'cpu': 950, 'gpu': 20_000}[size]
  # Smoke compiles fast; no more than a test that every stage runs.
  sizes = {'width': 64, 'hidden': 128, 'blocks': 1} if small else {}
  scales = {'sizes': (512, 1024), 'mels': (40, 80)} if small else {}
  return train.Config(
      objective=objectives.Codec(
          tokenizer=tokenizers.Codec(
              encoder=parts.SpectralEncoder(**sizes),
              bottleneck=bottlenecks.Rvq(),
              decoder=parts.SpectralDecoder(
                  window_blocks=0 if small else 1, **sizes
              ),
          ),
          # The complex distance teaches phase (PESQ), the mel distance
          # envelopes (STOI); this balance learns both in the time there is.
          mel_weight=8.0,
          stft_weight=1.0,
          **scales,
      ),
      data=data.AudioCrops(
          corpus='asterisk_prompts',
          languages=('en',) if small else ('en', 'fr', 'es'),
          gain_db=4.0,
      ),
      models={
          'codec': train.ModelTraining(
              optimizer=optimizers.AdamW(b1=0.8, b2=0.99),
              schedule=optimizers.Cosine(
                  learning_rate=2e-3, warmup_steps=min(100, steps // 4)
              ),
              clip=10.0,
              ema=0.9 if small else 0.995,
          )
      },
      steps=steps,
      batch_size={'smoke': 8, 'cpu': 8, 'gpu': 64}[size],
      log_every=10,
      eval_every=steps,
      checkpoint=checkpoints.Config(every=min(1000, steps // 2)),
  )
