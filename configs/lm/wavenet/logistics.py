"""A WaveNet with a discretised mixture of 10 logistics (1701.05517, eq. 2).

python -m audiolm_jax.main --config=configs/lm/wavenet/logistics.py:cpu \
    --workdir=runs/wavenet/logistics

Samples come in as amplitudes, so that all 16 bits are seen and scored.

Hardware: 'full' one GPU (an estimate: it was built and traced here, not run).
`:cpu` is 2 CPU cores: a step takes 1.0 s of one of them, so about 4 minutes. It
was not run to the end, so no number is claimed. `:smoke` is its compiling.
"""

from configs.lm.wavenet import recipe


def get_config(arg: str = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  return recipe.build(
      arg,
      head={'kind': 'logistics', 'mixtures': 10},
      inputs='amplitude',
  )
