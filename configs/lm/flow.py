"""A flow-matching transformer over the latents of a VAE, told the text.

The codec first, its latents as a cache, then the model; each command of a size
('smoke', 'cpu', 'gpu') goes with the others of the same:

python tools/prepare_data.py
python -m audiolm_jax.main --config=configs/codec/quickstart_vae.py:cpu \
    --workdir=runs/flow/vae
python tools/tokenize_audio.py corpus --tokenizer=runs/flow/vae \
    --corpus=asterisk_prompts --languages=en,fr,es --out=runs/flow/tokens
python -m audiolm_jax.main --config=configs/lm/flow.py:cpu \
    --workdir=runs/flow/lm

(For `smoke`, whose codec knows English only, `--languages=en`.)

Rectified flow (2210.02747), u predicted, times logit-normal (2403.03206); a
transformer with AdaLN-zero (2212.09748) over all frames at once, cross-attention
to the bytes of the text, which one row in ten lacks, so that generation may be
guided. One row in ten keeps its beginning, and one in ten pieces of itself: the
model fills in the rest (stable-audio-tools' shares). Averaged weights are what is
evaluated and exported.

    lm = audiolm_jax.load('runs/flow/lm')
    latents = lm.generate(100, [100], guidance=guidance.Plain(3.0),
                          conditions={'text': ['press one']})

Differences from F5-TTS (2410.06885): the text is attended to instead of being
stretched over the frames, and gaps are in one row in five instead of in all;
from stable-audio's: u of rectified flow for v of the cosine process
(`--config.objective.decoder.process.kind=cosine
--config.objective.decoder.target=v`), and time scales instead of being a token.

Hardware: `:smoke` 2 CPU cores, its 20 steps are seconds, after compiling. `:cpu`
(7.7M parameters, 83 GFLOPs a step) is for 2 CPU cores and `:gpu` (179M) for one
GPU. `:cpu` was trained for 600 of its 2000 steps (`--config.steps=600`, 14 minutes
on half a core, one seed): `denoising_error`, of latents of unit variance and noise,
is .925 on 100 validation clips, still falling (.994 at step 300; predicting nothing
is about 2).
"""

from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers
from configs.codec import quickstart_vae
from configs.lm import conditioning


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  steps = {'smoke': 20, 'cpu': 2000, 'gpu': 200_000}[size]
  width, layers, heads, hidden = {
      'smoke': (64, 2, 2, 128),
      'cpu': (256, 4, 4, 1024),
      'gpu': (768, 12, 12, 3072),
  }[size]
  frames = {'smoke': 32, 'cpu': 128, 'gpu': 512}[size]
  return train.Config(
      objective=objectives.Denoising(
          decoder=decoders.Flow(
              dimension=quickstart_vae.DIMENSION,
              backbone=stack_lib.Stack(
                  width=width,
                  layers=layers,
                  mixers=(
                      attention.Attention(
                          heads=heads, mask_kind='bidirectional'
                      ),
                  ),
                  mlp=mlps.Dense(hidden=hidden, activation='gelu_tanh'),
                  cross=attention.Cross(heads=heads),
                  adaptive='adaln_zero',
                  film_silu=True,
              ),
              conditions={
                  'text': conditioning.conditioner('text', 'cross', size)
              },
              gaps=gaps_lib.Gaps(prefix=0.1, segments=0.1),
          ),
          density=times_lib.LogitNormal(),
      ),
      data=data.TokenCrops(cache='runs/flow/tokens', frames=frames),
      evaluators={
          'flow': evaluation.DenoisingErrors(
              clips=evaluation.TokenClips(
                  limit={'smoke': 4, 'cpu': 100, 'gpu': 500}[size],
                  # Few lengths, and so few shapes to compile.
                  max_frames=frames,
              ),
              levels={'smoke': 3, 'cpu': 10, 'gpu': 10}[size],
          )
      },
      models={
          'lm': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.01),
              schedule=optimizers.Cosine(
                  learning_rate=1e-4 if size == 'gpu' else 1e-3,
                  warmup_steps=min(1000, steps // 10),
              ),
              clip=1.0,
              ema={'smoke': 0.9, 'cpu': 0.995, 'gpu': 0.9999}[size],
          )
      },
      steps=steps,
      batch_size={'smoke': 8, 'cpu': 16, 'gpu': 128}[size],
      log_every=10,
      eval_every={'smoke': steps, 'cpu': 500, 'gpu': 10_000}[size],
      checkpoint=checkpoints.Config(every={'smoke': 10}.get(size, 1000)),
  )
