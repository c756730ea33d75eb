"""A WaveNet as published (1609.03499): a softmax over 256 mu-law classes.

python -m audiolm_jax.main --config=configs/lm/wavenet/mu_law.py:cpu \
    --workdir=runs/wavenet/mu_law

Samples come in by an embedding of their class. A class's probability is spread
evenly over its levels, so what it scores is the 16-bit grid: the softmax cannot
tell the levels of a class apart, and pays for them.

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
      head={'kind': 'mu_law', 'classes': 256},
      inputs='classes',
  )
