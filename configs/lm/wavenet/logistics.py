"""A WaveNet with a discretised mixture of 10 logistics (1701.05517, eq. 2).

python -m audiolm_jax.main --config=configs/lm/wavenet/logistics.py:cpu \
    --workdir=runs/wavenet/logistics

Samples come in as amplitudes, so that all 16 bits are seen and scored.

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
      head={'kind': 'logistics', 'mixtures': 10},
      inputs='amplitude',
  )
