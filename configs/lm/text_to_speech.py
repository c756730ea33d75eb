"""A small model that speaks texts: bytes of a text, then the codes of a clip.

python -m audiolm_jax.main --config=configs/lm/text_to_speech.py:cpu \
    --workdir=runs/text_to_speech

The quickstart's model (4 codebooks in a delay pattern) over whole clips of up
to 192 frames (3.8 s), each after its text, which is predicted, too. Reads the
token cache that `tools/quickstart.py` makes (give another by
--config.data.cache).

`speech/bits_per_frame` is what speech costs given its text. In the quickstart's
minutes a model this small learns where a clip goes more than what it says: this
config shows the form, text then speech, in which to train larger ones.

Hardware: 2 CPU cores. 5.4M parameters; a step is 62 GFLOPs, 2.2 times the
quickstart's. Its time, and the bits to expect, have not been measured. `:gpu`
has the quickstart's budget for accelerators, and rows of up to 256 bytes and
512 frames; it was built and traced here, not run.
"""

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax import train
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.training import config_files
from configs.lm import quickstart


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  (size,) = config_files.choose(arg, config_files.SIZES)
  base = quickstart.get_config(size)
  text, frames = {'smoke': (24, 48), 'cpu': (96, 192), 'gpu': (256, 512)}[size]
  speech = tuple(range(1, 1 + quickstart.CODEBOOKS))
  decoder = decoders.Segmented(
      vocabularies=(256, *(1024,) * quickstart.CODEBOOKS),
      sequence=sequence_lib.Sequence(
          segments=(
              sequence_lib.Segment(label='text', slots=(0,)),
              sequence_lib.Segment(
                  label='speech', slots=speech, pattern=patterns.Delay()
              ),
          )
      ),
      backbone=base.objective.decoder.backbone,
  )
  lengths = {'frames': frames, 'text_bytes': text}
  return config.replace(
      base,
      {
          'objective': objectives.NLL(decoder=decoder),
          'data': data.TextAndTokens(cache=base.data.cache, **lengths),
          'evaluators': {
              'segments': evaluation.Bits(
                  clips=evaluation.TextClips(
                      limit=base.evaluators['lm'].clips.limit, **lengths
                  )
              )
          },
      },
  )
