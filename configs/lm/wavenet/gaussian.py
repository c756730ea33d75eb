"""A WaveNet with one Gaussian a sample, integrated over the grid's cells.

python -m audiolm_jax.main --config=configs/lm/wavenet/gaussian.py:cpu \
    --workdir=runs/wavenet/gaussian

As ClariNet's teacher (1807.07281), but on the grid: its bits compare with those
of the other heads, where a density's would not.

Hardware: 'full' one GPU (an estimate: it was built and traced here, not run).
`:cpu` is 2 CPU cores: a step takes 1.0 s of one of them (measured), so some 4
minutes. It was not run to the end, so nothing is claimed of the model. Its 54
clips (107 s) take 10.47 bits a sample by FLAC and 10.46 by linear prediction
(measured). `:smoke` is seconds and its compiling.
"""

from typing import Literal

from configs.lm.wavenet import recipe


def get_config(arg: Literal['full', 'cpu', 'smoke'] = 'full'):
  """The config; `arg` is 'full', 'cpu' or 'smoke'."""
  return recipe.build(
      arg,
      head={'kind': 'gaussian', 'mixtures': 1},
      inputs='amplitude',
  )
