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

`:cpu` is `:text,cpu`: rectified flow (2210.02747), u predicted, times logit-normal
(2403.03206); a transformer with AdaLN-zero (2212.09748) over all frames at once,
cross-attention to the bytes of the text, which one row in ten lacks, so that
generation may be guided. One row in ten keeps its beginning, and one in ten pieces
of itself: the model fills in the rest (stable-audio-tools' shares). Averaged weights
are what is evaluated and exported.

    python tools/generate.py --model=runs/flow/lm --text='press one' --seconds=2 \
        --guidance=3 --out=one.wav

The other arms are in the manner of public models, each with this transformer:

- `:stable_audio,cpu` (2404.10301): v of the cosine process, uniform times, and
  seconds as conditions: how long the clip is, and where in it the row begins, two
  positions before its first frame. There, they are one position together with the
  time, are attended to beside a T5's text, too, and nothing scales (no AdaLN): here
  the time scales (`--config.objective.decoder.time_token=True` has both), and the
  text's encoder learns along. DPM-Solver++(2M) stands for its 3M SDE:

      python tools/generate.py --model=runs/flow/stable_audio --text='press one' \
          --seconds=4 --condition=seconds_start=0 --condition=seconds_total=2 \
          --sampler=dpm_2m --steps=100 --guidance=6 --out=one.wav

- `:f5,cpu` (2410.06885): one piece of 70% to 100% is hidden, of seven rows in ten,
  and all of the others; uniform times. The text is of what is given and of what is
  not, so a voice goes on from a prompt, whose text stands before that of what to
  say. There, the text is stretched over the frames and joined to them, instead of
  being attended to; text and audio are dropped together in two batches of ten, and
  audio alone in three: here the text is in two rows of ten, and audio in three,
  each by itself. Its times sway towards noise:

      lm = audiolm_jax.load('runs/flow/f5')
      latents = lm.generate(
          frames, [frames], given=given, given_mask=mask,
          conditions={'text': ['what the prompt says, and what is to say']},
          grid=times.Grid(32, sway=-1.0), guidance=guidance.Plain(3.0))

- `:jasco,cpu` (2406.10970): several conditions, each of which two rows in ten lack,
  so that generation may weigh them by themselves; uniform times, in waves of at
  most a radian. There, chords, melody and drums are joined to the frames: here the
  clip's language and speaker are added to them.

      lm = audiolm_jax.load('runs/flow/jasco')
      mixture = guidance.Mixture(((3.0, ('language', 'speaker', 'text')),
                                  (1.5, ('text',))))
      latents = lm.generate(100, [100], guidance=mixture, conditions={...})

- `:blocks,cpu`: attention sees no block of .2 s after a frame's own, so that audio
  comes while it is made, each block in all of its steps (in the manner of
  CosyVoice 2, 2412.10117, whose noise goes by the frame, too):

      python tools/generate.py --model=runs/flow/blocks --text='press one' \
          --seconds=2 --stream --out=- | aplay -f S16_LE -r 16000

Hardware: `:smoke` 2 CPU cores, its 20 steps are seconds, after compiling. `:cpu`
(7.7M parameters, 83 GFLOPs a step) is for 2 CPU cores, 50 minutes of one: 25 if
nothing else runs. Expected (one seed): a `denoising_error`, of latents of unit
variance and noise, of .837 on 100 validation clips (.925, .867, .845 at steps 500,
1000, 1500; predicting nothing is about 2); audio that sounds like the voice, and
not yet like the text. `:gpu` (179M) is for one GPU: built and traced, not run. The
other arms were trained for steps of their smoke budget only.
"""

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import times as times_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers
from configs.codec import quickstart_vae
from configs.lm import conditioning

# How conditions act, the share of rows that are without each, and what else
# differs from the first.
VARIANTS = {
    'text': ({'text': 'cross'}, 0.1, {}),
    'stable_audio': (
        {'seconds_start': 'prefix', 'seconds_total': 'prefix', 'text': 'cross'},
        0.1,
        {
            'decoder.process': gaussian.Cosine(),
            'decoder.target': 'v',
            'density': times_lib.Uniform(),
        },
    ),
    'f5': (
        {'text': 'cross'},
        0.2,
        {
            'decoder.gaps': gaps_lib.Gaps(0.0, 0.0, piece=0.7, least=0.7),
            'density': times_lib.Uniform(),
        },
    ),
    'jasco': (
        {'language': 'add', 'speaker': 'add', 'text': 'cross'},
        0.2,
        {'decoder.time.scale': 1.0, 'density': times_lib.Uniform()},
    ),
    'blocks': (
        {'text': 'cross'},
        0.1,
        {
            'decoder.backbone.mixers[0].mask_kind': 'block_causal',
            'decoder.backbone.mixers[0].block': 10,
        },
    ),
}


def get_config(arg: str = 'text,cpu') -> train.Config:
  """The config; `arg` is one of `VARIANTS` and a size, or a size."""
  if arg in config_files.SIZES:
    arg = f'text,{arg}'
  name, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  conditions, dropout, changes = VARIANTS[name]
  decoder = {
      f'decoder.conditions.{factor}': conditioning.conditioner(
          factor, how, size, dropout
      )
      for factor, how in conditions.items()
  }
  settings = _with_text(size)
  changed = config.replace(settings.objective, {**decoder, **changes})
  return config.replace(settings, {'objective': changed})


def _with_text(size):
  """The first variant, but for its condition."""
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
