"""A few-step map of the flow of configs/lm/flow.py, distilled from its run.

The codec, the cache and the flow first, as that file says; then

python -m audiolm_jax.main --config=configs/lm/flow_few.py:cpu \
    --workdir=runs/flow/few
python tools/few_steps.py --teacher=runs/flow/lm --model=runs/flow/few \
    --cache=runs/flow/tokens --out=runs/flow/few_steps.html

The student is the flow's decoder with a second time, which adds nothing at the
start, from the flow's averaged weights; the teacher is the same weights, frozen.
Lagrangian distillation (2505.18825): where a jump ends moves, as its end does, at
the teacher's velocity there. Half of the rows do not jump and keep the velocity
itself. It is the default here rather than MeanFlow (2505.13447;
`--config.objective.mean_flow=1 --config.objective.lagrangian=0`), whose
derivative goes through the waves of t, the fastest of which has 1000 radians.

    lm = audiolm_jax.load('runs/flow/few')
    latents = lm.generate(100, [100], grid=times.Grid(2),
                          conditions={'text': ['press one']})

`flow_few.py:guided,cpu` distils the teacher under guidance of scale 2, which the
student then has at no further evaluation: give `generate` none.

Hardware: as the flow's; a step computes 2.0 times what one of the flow does,
guided 2.4 times. `:cpu` took 13 minutes beside other work at a load of 6. Expected
(one seed): a Frechet distance of latents of 1.00 in one jump, .45 in two and .27 in
four, where the flow has 14.8, 1.35, .24 and .09 in 1, 4, 16 and 64 steps of Euler's
(docs/decoders.md). `:gpu` was built and traced, not run, `guided` in smoke only.
"""

import dataclasses

from audiolm_jax import objectives
from audiolm_jax import param_transforms
from audiolm_jax import train
from audiolm_jax.decoders import time_embedding
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers
from configs.lm import flow

TEACHER = 'runs/flow/lm'
GUIDANCE = {'plain': None, 'guided': guidance_lib.Plain(2.0)}
# What tools/baseline.py goes through.
VARIANTS = tuple(GUIDANCE)


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu', after 'guided,' or not."""
  if ',' not in arg and arg not in VARIANTS:
    arg = f'plain,{arg}'
  variant, size = config_files.choose(arg, GUIDANCE, config_files.SIZES)
  base = flow.get_config(size)
  steps = {'smoke': 20, 'cpu': 150, 'gpu': 20_000}[size]
  jump = time_embedding.TimeEmbedding(frequencies=32, scale=8.0, span=64.0)
  student = dataclasses.replace(
      base.models['lm'],
      schedule=optimizers.Cosine(
          learning_rate=3e-5 if size == 'gpu' else 3e-4,
          warmup_steps=min(500, steps // 10),
      ),
      ema={'smoke': 0.9, 'cpu': 0.98, 'gpu': 0.999}[size],
      init_from=TEACHER,
      init_fresh=('^jump/',),
  )
  teacher = train.ModelTraining(
      param_transform=param_transforms.Frozen(),
      init_from=TEACHER,
      init_model='lm',
  )
  return dataclasses.replace(
      base,
      objective=objectives.FlowMapDistillation(
          decoder=base.objective.decoder.clone(jump=jump),
          density=base.objective.density,
          guidance=GUIDANCE[variant],
      ),
      models={'lm': student, 'teacher': teacher},
      steps=steps,
      eval_every={'smoke': steps, 'cpu': 250, 'gpu': 10_000}[size],
      checkpoint=checkpoints.Config(every={'smoke': 10}.get(size, 250)),
  )
