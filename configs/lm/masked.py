"""Masked discrete diffusion over the quickstart's tokens.

python -m audiolm_jax.main --config=configs/lm/masked.py:any_order,cpu \
    --workdir=runs/masked/any_order

The quickstart's transformer, bidirectional, learns to say hidden codes given all
others. They train on the tokens of tools/quickstart.py (runs/quickstart/tokens;
for others set --config.data.cache). The evaluation is a bound in bits a frame,
`bits_per_frame`, and what it becomes if codes are sampled in 1, 4, 16 or 64
steps a stage, `bits_per_frame_in_T_steps`: how much quality speed costs.

    python tools/generate.py --model=runs/masked/any_order --steps=16 \
        --seconds=3 --out=out.wav
    python tools/generate.py --model=runs/masked/any_order --prompt=in.wav \
        --infill=0.5:1.0 --seconds=0 --out=filled.wav

| variant | bits a frame (bound) | in 1 step a stage | 4 | 16 | 64 |
|---|---|---|---|---|---|
| any_order | 29.6 | 38.1 | 31.6 | 30.1 | 29.7 |
| soundstorm | 32.3 | 35.6 | 33.1 | 32.6 | 32.5 |
| magnet | 32.5 | 35.4 | 33.1 | 32.7 | 32.6 |

Hardware: `:VARIANT,cpu` 2 CPU cores, 17 minutes beside other work at a load of
8. These bounds are of 100 validation clips cut to 128 frames, 16 draws each, one
seed. `soundstorm` and `magnet` train by a loss that is no bound, on one of four
stages a row and half of the rows after a prompt, for as many steps; the bits of
single codebooks go by the order in which they are drawn, and compare within a
variant of stages only. `gpu` is a model of the quickstart's size there, for
longer; it was built and traced here, not run.
"""

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import train
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.processes import hiding
from audiolm_jax.training import config_files
from configs.lm import quickstart

_CODEBOOKS = range(quickstart.CODEBOOKS)
VARIANTS = {
    # All codes of the clip in any order: the loss is the bound itself.
    'any_order': {},
    # One codebook after the other, of each as many codes as MaskGIT's cosine
    # says, and continuations of prompts of any length (SoundStorm, 2305.09636;
    # its codes are given the semantic tokens of a clip, these nothing).
    'soundstorm': {
        'stages': tuple((k,) for k in _CODEBOOKS),
        'hiding': hiding.Rate('cosine'),
        'gaps': gaps_lib.Gaps(prefix=0.5, segments=0.0),
    },
    # The same by spans of 3 frames, and codebooks after the first see 5 frames
    # to either side only (MAGNeT, 2401.04577).
    'magnet': {
        'stages': tuple((k,) for k in _CODEBOOKS),
        'windows': (None, *(6 for _ in _CODEBOOKS[1:])),
        'hiding': hiding.Spans(3, 'cosine'),
        'gaps': gaps_lib.Gaps(prefix=0.5, segments=0.0),
    },
}


def get_config(arg: str = 'any_order,cpu') -> train.Config:
  """The config; `arg` is one of `VARIANTS` and a size."""
  name, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  base = quickstart.get_config(size)
  (mixer,) = base.objective.decoder.backbone.mixers
  decoder = decoders.Masked(
      vocabularies=base.objective.decoder.vocabularies,
      backbone=config.replace(
          base.objective.decoder.backbone,
          {
              'mixers': (
                  attention.Attention(mixer.heads, mask_kind='bidirectional'),
              )
          },
      ),
      **VARIANTS[name],
  )
  steps = {'smoke': 20, 'cpu': 2000, 'gpu': 200_000}[size]
  return config.replace(
      base,
      {
          'objective.decoder': decoder,
          'steps': steps,
          'eval_every': min(20_000, steps),
          'checkpoint.every': min(5000, steps // 2),
          'evaluators.lm': evaluation.Bounds(
              clips=base.evaluators['lm'].clips,
              draws={'smoke': 4, 'cpu': 16, 'gpu': 16}[size],
              steps=(1, 4) if size == 'smoke' else (1, 4, 16, 64),
          ),
          'models.lm.schedule.warmup_steps': min(1000, steps // 10),
      },
  )
