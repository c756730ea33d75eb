"""A small model that speaks texts: bytes of a text, then the codes of a clip.

python -m audiolm_jax.main --config=configs/lm/text_to_speech.py:cpu \
    --workdir=runs/text_to_speech

The quickstart's model (4 codebooks in a delay pattern) over whole clips of up
to 192 frames (3.8 s), each after its text, which is predicted, too. Reads the
token cache that `tools/quickstart.py` makes; give another by
--config.data.cache and --config.evaluators.segments.source.cache.

`speech/bits_per_frame` is what speech costs given its text. In the quickstart's
minutes a model this small learns where a clip goes more than what it says: this
config shows the form, text then speech, in which to train larger ones.

Hardware: 2 CPU cores. 5.4M parameters; a step is 62 GFLOPs, 2.2 times the
quickstart's. Its time, and the bits to expect, have not been measured.
"""

from typing import Literal

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from configs.lm import quickstart


def get_config(arg: Literal['cpu', 'smoke'] = 'cpu'):
  """The config; `arg` is 'cpu' or 'smoke'."""
  values = quickstart.get_config(arg)
  text, frames = {'cpu': (96, 192), 'smoke': (24, 48)}[arg]
  speech = tuple(range(1, 1 + quickstart.CODEBOOKS))
  source = {
      'cache': values.data.cache,
      'codebooks': quickstart.CODEBOOKS,
      'frames': frames,
      'text_bytes': text,
  }
  values.objective = config.kind(
      objectives.OBJECTIVES,
      'segments',
      frames={'text': text, 'speech': frames},
      decoder={
          'kind': 'segments',
          'vocabularies': (256, *(1024,) * quickstart.CODEBOOKS),
          'sequence': {
              'segments': (
                  {'label': 'text', 'slots': (0,)},
                  {
                      'label': 'speech',
                      'slots': speech,
                      'pattern': {'kind': 'delay'},
                  },
              ),
          },
          'backbone': values.objective.decoder.backbone,
      },
  )
  values.data = config.kind(data.SOURCES, 'text_and_tokens', **source)
  limit = values.evaluators.lm.limit
  values.evaluators = {
      'segments': config.kind(
          evaluation.EVALUATORS,
          'segments',
          source={**source, 'split': 'validation', 'limit': limit},
      )
  }
  return values
