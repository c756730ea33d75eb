"""AudioLM's first stage: semantic tokens. See recipe.py for what stands in.

python -m audiolm_jax.main --config=configs/lm/audiolm/semantic.py:cpu \
    --workdir=runs/audiolm/semantic

Reads the token cache that `tools/quickstart.py` makes (runs/quickstart/tokens;
give another by --config.data.cache, --config.objective.codebooks and
--config.evaluators.lm.cache).

Hardware: 2 CPU cores. 3.7M parameters; a step is 23 GFLOPs, 0.8 times the
quickstart's. Its time, and the bits to expect, have not been measured.
"""

from typing import Literal

from configs.lm.audiolm import recipe


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  decoder = {'kind': 'tokens', 'pattern': {'kind': 'parallel'}}
  return recipe.build(arg, decoder, codebooks=1, frames=128)
